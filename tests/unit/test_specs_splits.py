"""Splits depend on the seed and the texts alone, with exact counts, and refuse small sets."""

import random

import pytest
from pydantic import ValidationError

from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.splits import Splits, divided
from tests.simulated import canonical, experiment_spec, texts

TEXTS = [f"text number {n}" for n in range(40)]


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


def test_by_default_all_prompts_choose_and_all_openings_are_scored():
    assert set(Splits().of_prompts(TEXTS)) == {"discover"}
    assert set(Splits().of_openings(TEXTS)) == {"test"}


def test_prompts_and_openings_are_divided_by_their_own_weights():
    splits = Splits(discover=0.6, test=0.2, calibrate=0.6)
    assert splits.of_prompts(TEXTS).count("test") == 10
    assert splits.of_openings(TEXTS).count("calibrate") == 30


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
    with pytest.raises(ValidationError, match="needs at least 2 openings, found 1"):
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
