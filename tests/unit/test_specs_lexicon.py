"""Word lists that would be scored for nothing, and prompts that cannot tell a concept."""

import pytest
from pydantic import ValidationError

from loopscope.controller.inputs.prompts import check_prompts
from loopscope.numerics.scores import lexicon_pattern as pattern_of_the_score
from loopscope.specs.kinds import SteeringSpec
from loopscope.specs.lexicon import check_apart, lexicon_pattern
from tests.simulated import experiment_spec, texts


def steering(**changes):
    spec = {
        **experiment_spec()["steering"],
        "captureRef": {"name": "c"},
        "mappingRef": {"name": "m"},
    }
    return SteeringSpec.model_validate({**spec, **changes})


def prompts_of(target=5, neutral=5, **changes):
    return {
        "prompts": {
            "target": texts(*(f"Paris {n} is" for n in range(target))),
            "neutral": texts(*(f"Rome {n} is" for n in range(neutral))),
        },
        **changes,
    }


@pytest.mark.parametrize("field", ["prompts", "neutralText"])
def test_the_concept_is_not_there_before_steering(field):
    with pytest.raises(ValidationError) as refused:
        steering(**{field: texts("We went by train to", "Once upon a time in  PARIS there")})
    assert "1 of 2" in str(refused.value)
    assert "'PARIS' in 'Once upon a time in  PARIS there'" in str(refused.value)


def test_a_part_of_a_word_is_no_word_of_the_lexicon():
    assert steering(prompts=texts("The Parisian said that"))


@pytest.mark.parametrize(
    ("siblings", "example"),
    [
        (["Berlin", "paris"], "paris"),
        (["Berlin", "Paris, Texas"], "Paris, Texas"),
        (["Berlin", "tower"], "Eiffel tower"),
    ],
)
def test_a_word_is_of_the_concept_or_of_its_siblings(siblings, example):
    with pytest.raises(ValidationError, match=f"for example '{example}'"):
        steering(lexicon=texts("Paris", "Eiffel tower"), siblings=texts(*siblings))


def test_siblings_that_share_only_letters_are_fine():
    check_apart(["German"], ["Germany", "Germanic"])


@pytest.mark.parametrize("name", ["target", "neutral"])
def test_fewer_prompts_than_the_test_needs_are_refused(name):
    assert check_prompts(experiment_spec(**prompts_of())) == []
    ((field, message),) = check_prompts(experiment_spec(**prompts_of(**{name: 4})))
    assert field == f"spec.prompts.{name}"
    assert message.startswith("4 prompts, expected at least 5")


def test_a_selection_without_a_test_may_have_any_number_of_prompts():
    few = prompts_of(target=1, neutral=1, selection={"maxQ": 1.0})
    assert check_prompts(experiment_spec(**few)) == []


def test_a_concept_in_the_neutral_prompts_is_refused_a_slip_is_not():
    neutral = [f"Rome {n} is" for n in range(99)]
    spec = prompts_of()
    spec["prompts"]["neutral"] = texts(*neutral, "Rome, not Paris, is")
    assert check_prompts(experiment_spec(**spec)) == []
    spec["prompts"]["neutral"] = texts(*neutral, "Rome, not Paris, is", "In Paris it is")
    ((field, message),) = check_prompts(experiment_spec(**spec))
    assert field == "spec.prompts.neutral"
    assert message.startswith("2 of 101 neutral prompts hold a word of the lexicon")


@pytest.mark.parametrize(
    "text", ["Côte  d'Azur", "Cote d'Azur", "C++", "C++11", "Parisian PARIS", "Unparis"]
)
def test_words_are_found_as_the_concept_score_finds_them(text):
    words = ["Paris", "Cote\u0302 d'Azur", "C++"]
    found = lexicon_pattern(words).search(text)
    scored = pattern_of_the_score(words).search(text)
    assert (found and found.span()) == (scored and scored.span())
