"""Splits depend on the seed and the texts alone, with exact counts, and refuse small sets."""

import random
from collections import Counter

import pytest
from pydantic import ValidationError

from loopscope.specs.fields import GroupedTexts
from loopscope.specs.files import RootedFiles
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.splits import Prompt, Splits, divided, labelled, numbered
from tests.simulated import canonical, experiment_spec, texts

TEXTS = [f"text number {n}" for n in range(40)]


def prompts(targets, neutrals=None, label=lambda condition, n: None):
    """Return so many prompts of either condition; ``label`` names each one's group."""
    return [
        Prompt(f"{condition}-{n}", f"{condition} text {n}", condition, label(condition, n))
        for condition, count in (("target", targets), ("neutral", neutrals or targets))
        for n in range(count)
    ]


def held(seed: int, share: float, given=TEXTS) -> set[str]:
    return {
        text for text, is_held in zip(given, divided(given, seed, share), strict=True) if is_held
    }


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [
        (40, 0.5, 20),
        (40, 0.25, 10),
        (7, 0.5, 4),
        (2, 0.01, 1),
        (2, 0.99, 1),
        (1, 0.4, 0),
        (9, 0, 0),
    ],
)
def test_counts_are_exact_and_neither_side_is_empty(count, share, expected):
    assert sum(divided(TEXTS[:count], 0, share)) == expected


def test_order_case_and_spacing_change_nothing():
    shuffled = TEXTS.copy()
    random.Random(0).shuffle(shuffled)
    assert held(3, 0.3, shuffled) == held(3, 0.3)
    loud = [f"  {text.upper()} " for text in TEXTS]
    assert divided(loud, 3, 0.3) == divided(TEXTS, 3, 0.3)


def test_another_seed_holds_out_other_texts():
    assert len({frozenset(held(seed, 0.5)) for seed in range(20)}) == 20


def test_a_larger_test_part_keeps_the_smaller_one():
    assert held(0, 0.2) < held(0, 0.4)


def test_by_default_all_of_few_prompts_choose_and_all_openings_are_scored():
    assert set(Splits().of_prompts(prompts(49))) == {"discover"}
    assert set(Splits().of_openings([(text, None) for text in TEXTS])) == {"test"}


def test_prompts_and_openings_are_divided_by_their_own_weights():
    splits = Splits(discover=0.6, test=0.2, calibrate=0.6)
    assert Counter(splits.of_prompts(prompts(40))) == {"discover": 60, "test": 20}
    assert splits.of_openings([(text, None) for text in TEXTS]).count("calibrate") == 30


@pytest.mark.parametrize(("targets", "neutrals", "held"), [(50, 50, 50), (50, 49, 0), (61, 50, 56)])
def test_from_fifty_prompts_a_side_on_half_of_each_side_confirms_by_default(
    targets, neutrals, held
):
    given = prompts(targets, neutrals)
    splits = Splits().of_prompts(given)
    assert splits.count("test") == held
    assert splits == Splits(test=1.0 if held else 0.0).of_prompts(given)
    assert set(Splits(test=0.0).of_prompts(given)) == {"discover"}


def test_a_default_never_refuses_what_cannot_be_halved():
    few = [Prompt(f"h-{n}", f"hard {n}", "hard-negative", None) for n in range(4)]
    assert set(Splits().of_prompts([*prompts(60), *few])) == {"discover"}
    sides = [Prompt(p.id, p.text, p.condition, "one template") for p in prompts(60)]
    assert set(Splits().of_prompts(sides)) == {"discover"}


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"test": 0.5}, "leaves 3 of 4 target prompts to discover"),
        ({"calibrate": 0.5}, "no opening would be scored"),
        ({"discover": 0.0}, "greater than 0"),
    ],
)
def test_a_split_that_cannot_answer_is_refused_at_apply(splits, words):
    sets = {"target": texts("a", "b", "c", "d"), "neutral": texts("e", "f", "g", "h")}
    spec = {**experiment_spec(), "prompts": sets, "splits": splits}
    with pytest.raises(ValidationError, match=words):
        SPEC_BY_KIND["Experiment"].model_validate(spec)


def test_a_single_opening_cannot_calibrate_and_be_scored():
    many = {"target": texts(*TEXTS[:20]), "neutral": texts(*TEXTS[20:])}
    spec = {**experiment_spec(), "prompts": many}
    spec["steering"] = {**spec["steering"], "prompts": texts("one")}
    spec["splits"] = {"test": 0.5, "calibrate": 0.5}
    with pytest.raises(ValidationError, match="groups of them, found 1"):
        SPEC_BY_KIND["Experiment"].model_validate(spec)


def test_an_opening_that_is_a_prompt_is_refused():
    spec = experiment_spec()
    prompt = spec["prompts"]["neutral"]["texts"][0]
    spec = {**spec, "steering": {**spec["steering"], "prompts": texts(f" {prompt.upper()}")}}
    with pytest.raises(ValidationError, match="1 openings of steering are prompts as well"):
        SPEC_BY_KIND["Experiment"].model_validate(spec)


def test_a_hard_negative_is_in_no_other_set():
    spec = experiment_spec()
    prompt = spec["prompts"]["neutral"]["texts"][0]
    spec = {**spec, "prompts": {**spec["prompts"], "hardNegatives": texts(prompt)}}
    with pytest.raises(ValidationError, match="in both sets, neutral and hard-negative"):
        SPEC_BY_KIND["Experiment"].model_validate(spec)


def test_absent_hard_negatives_leave_no_trace_in_the_stored_spec():
    assert "hardNegatives" not in canonical("Experiment", experiment_spec())["prompts"]


# -- texts that belong together --------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_mirrors_fall_on_one_side_and_the_counts_stay_exact(seed):
    mirrored = prompts(40, label=lambda condition, n: str(n))
    splits = Splits(test=0.5, seed=seed).of_prompts(mirrored)
    targets, neutrals = splits[:40], splits[40:]
    assert targets == neutrals and targets.count("test") == 13
    alone = Splits(test=0.5, seed=seed).of_prompts(prompts(40))
    assert alone[:40] != alone[40:], "without groups the mirrors were torn apart"


def test_templates_stay_whole_and_the_split_comes_as_near_as_they_allow():
    templated = prompts(60, label=lambda condition, n: f"{condition} {n // 9}")
    splits = Splits(test=1.0).of_prompts(templated)
    by_template = {}
    for prompt, split in zip(templated, splits, strict=True):
        by_template.setdefault(prompt.group, set()).add(split)
    assert all(len(sides) == 1 for sides in by_template.values())
    assert all(abs(half.count("test") - 30) < 9 for half in (splits[:60], splits[60:]))


def test_the_order_of_texts_and_the_names_of_groups_change_no_split():
    mirrored = prompts(40, label=lambda condition, n: str(n))
    renamed = [Prompt(p.id, p.text, p.condition, f"x{p.group}") for p in mirrored]
    shuffled = random.Random(1).sample(renamed, len(renamed))
    sides = dict(zip((p.id for p in shuffled), Splits(test=1.0).of_prompts(shuffled), strict=True))
    assert [sides[p.id] for p in mirrored] == Splits(test=1.0).of_prompts(mirrored)


def test_openings_of_one_source_are_scored_or_calibrated_together():
    openings = [(text, f"source {n // 4}") for n, text in enumerate(TEXTS)]
    splits = Splits(test=0.5, calibrate=0.5).of_openings(openings)
    assert splits.count("calibrate") == 20
    assert all(len(set(splits[n : n + 4])) == 1 for n in range(0, 40, 4))
    with pytest.raises(ValueError, match="groups of them, found 1"):
        Splits(test=0.5, calibrate=0.5).check_openings([(text, "one") for text in TEXTS])


def test_one_label_is_one_group_in_whichever_set_it_stands():
    target = {"texts": ["a", "b"], "groups": {"by": "line"}}
    neutral = {"texts": ["c", "d"], "groups": {"labels": ["2", "x"]}}
    labels = [label for one in (target, neutral) for _, label in labelled(one)]
    assert labels == ["1", "2", "2", "x"]
    assert numbered(labels) == [0, 1, 1, 3]
    assert numbered([None, "a", "b"]) is None, "nothing belongs together"


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (
            {"by": "line", "labels": ["a"]},
            "exactly one of by, file, column, labels; found by and labels",
        ),
        ({}, "exactly one of by, file, column, labels; found none"),
        ({"labels": ["a"]}, "expected one label of groups for each of 2 texts, found 1"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, words):
    spec = experiment_spec()
    target = {**spec["prompts"]["target"], "groups": groups}
    spec = {**spec, "prompts": {**spec["prompts"], "target": target}}
    with pytest.raises(ValidationError, match=words):
        SPEC_BY_KIND["Experiment"].model_validate(spec)


def test_labels_of_a_file_are_embedded_as_texts_are(tmp_path):
    (tmp_path / "target.txt").write_text("Paris is\nLyon is\n")
    (tmp_path / "sources.txt").write_text("guide\nguide\n")
    given = {"file": "target.txt", "groups": {"file": "sources.txt"}}
    context = {"files": RootedFiles(tmp_path, tmp_path)}
    stored = GroupedTexts.model_validate(given, context=context).canonical()
    assert stored["groups"] == {"file": "sources.txt", "labels": ["guide", "guide"]}
    assert GroupedTexts.model_validate(stored).canonical() == stored
