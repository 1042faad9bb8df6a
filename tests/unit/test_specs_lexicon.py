"""Word lists that would be scored for nothing, and prompts that cannot tell a concept."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from loopscope.controller.apply.prompts import check_prompts
from loopscope.specs.kinds.steering import SteeringSpec
from loopscope.specs.lexicon import check_apart, lexicon_pattern, mentions
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


def test_a_placebo_that_names_the_concept_is_refused_and_one_without_a_system_prompt_too():
    with pytest.raises(ValidationError, match="1 of 1 placebo prompts hold a word"):
        steering(systemPrompt="Speak.", placeboPrompt="All about Paris.")
    with pytest.raises(ValidationError, match="placeboPrompt belongs to systemPrompt"):
        steering(placeboPrompt="Whatever you like.")


def test_a_lexicon_of_common_words_leaves_too_few_packaged_texts_and_says_what_to_do():
    with pytest.raises(ValidationError) as refused:
        steering(neutralText=None, lexicon=texts("the"))
    assert "packaged neutral texts hold no word of the lexicon" in str(refused.value)
    assert "give neutralText" in str(refused.value)


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
    ("text", "expected"),
    [
        (" the wine of France.", True),
        (" FRANCE", True),
        (" france's coast", True),
        (" Frances was here", False),
        (" un-French", True),
        (" the Eiffel\n Tower", True),
        (" the Eiffel", False),
        (" a French-speaking", True),
        (" l'E\u0301lyse\u0301e", True),
        (" ÉLYSÉE", True),
        ("", False),
    ],
)
def test_the_lexicon_matches_whole_words_in_any_case(text, expected):
    pattern = lexicon_pattern(["France", "French", "Eiffel Tower", "Élysée"])
    assert bool(mentions(pattern, text)) is expected


def test_the_opening_does_not_count_and_the_end_of_its_last_word_is_no_word():
    pattern = lexicon_pattern(["man", "German"])
    assert not mentions(pattern, "many people", "The German")
    assert not mentions(pattern, "man beer", "I like Ger")
    assert mentions(pattern, " man", "I like Ger")


def test_a_lexicon_without_words_is_refused():
    with pytest.raises(ValueError, match="no word"):
        lexicon_pattern(["  "])


def test_words_with_signs_are_taken_literally():
    assert not mentions(lexicon_pattern(["a.c"]), "abc")


def one_by_one(words):
    """The pattern with each word by itself, the longest first."""
    whole = {word: re.escape(word).replace("\\ ", r"\s+") for word in words}
    sides = {
        word: (r"(?<![^\W_])" * word[0].isalnum(), r"(?![^\W_])" * word[-1].isalnum())
        for word in words
    }
    ordered = sorted(words, key=lambda word: (-len(word), word))
    alone = [sides[word][0] + whole[word] + sides[word][1] for word in ordered]
    return re.compile("|".join(alone), re.IGNORECASE)


LETTERS = st.text("abAB1_-]^[&| ", min_size=1, max_size=4).map(str.strip).filter(bool)


@given(st.sets(LETTERS.map(lambda word: " ".join(word.split())), min_size=1, max_size=6), st.data())
def test_words_that_are_looked_for_together_are_found_as_each_alone(words, data):
    pieces = data.draw(st.lists(st.sampled_from([*sorted(words), " ", "b", "_", "-", "B"])))
    text = "".join(pieces)
    found = [match.span() for match in lexicon_pattern(sorted(words)).finditer(text)]
    assert found == [match.span() for match in one_by_one(words).finditer(text)]


CODE = ["{", "}", "==", "!=", "&&", "+=", "return"]


@pytest.mark.parametrize("text", ["x==y", "{a}", "a!=b", "if(a&&b)", "x+=1", "return_value"])
def test_symbols_are_found_wherever_they_stand(text):
    assert mentions(lexicon_pattern(CODE), text)


@pytest.mark.parametrize(
    "text",
    ["_Paris_", "Saint\u2011Tropez", "saint\u2014tropez", "Nimes", "NI\u0302MES", "L\u2019Oise"],
)
def test_emphasis_dashes_accents_and_apostrophes_hide_no_word(text):
    assert mentions(lexicon_pattern(["Paris", "Saint-Tropez", "Nîmes", "l'Oise"]), text)


@pytest.mark.parametrize("text", ["Parisian", "Unparis", "Paris2", "2Paris"])
def test_a_letter_or_digit_beside_a_word_makes_it_another_word(text):
    assert not mentions(lexicon_pattern(["Paris"]), text)


def test_a_mention_says_which_word_and_where_it_stands_in_the_text_as_it_is():
    text = "la Co\u0302te \n d'Azur, PARIS"
    found = mentions(lexicon_pattern(["Paris", "Côte d'Azur", "Côte"]), text)
    assert [mention.word for mention in found] == ["cote d'azur", "paris"]
    assert [text[m.start : m.end] for m in found] == ["Co\u0302te \n d'Azur", "PARIS"]
