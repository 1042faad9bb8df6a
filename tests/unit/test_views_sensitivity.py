"""What a verdict would be under another smallest difference is what the rules say of it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas
import pytest

from loopscope.numerics.verdict.decision import Evidence, VerdictRules, judge
from loopscope.views.sensitivity.min_difference import STEPS, verdict_by_min_difference
from loopscope.worker.stages.steering.verdict_record import decision_record

ARMS = {"none": 0.05, "coarse": 0.4, "fine": 0.5, "multi": 0.5}
COSINES = {"coarse~multi": 0.9, "fine~multi": 0.9, "coarse~fine": 0.6}
SHARED = {"multi-coarse": 0.03, "multi-fine": 0.02}


def world(
    seed: int, *, openings: int, samples: int, strengths: tuple[float, ...], grouped: bool
) -> tuple[pandas.DataFrame, Evidence, dict[str, Any]]:
    """Return a table of scores, the evidence that it holds, and the spec of the openings."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    concept, intact = {}, {}
    for arm, rate in ARMS.items():
        chosen = (0.0,) if arm == "none" else strengths
        hits = rng.random((len(chosen), openings, samples)) < rate
        whole = rng.random((len(chosen), openings, samples)) < 0.8
        for place, strength in enumerate(chosen):
            for opening in range(openings):
                rows += [
                    {
                        "prompt_id": f"opening-{opening:04d}",
                        "arm": arm,
                        "strength": strength,
                        "sample": sample,
                        "concept": float(hits[place, opening, sample]),
                        "intact": float(whole[place, opening, sample]),
                    }
                    for sample in range(samples)
                ]
        concept[arm] = hits.mean(axis=0)
        both, share = (hits * whole).mean(axis=(0, 2)), whole.mean(axis=(0, 2))
        intact[arm] = np.where(share > 0, both / np.where(share > 0, share, 1.0), np.nan)
    texts = [f"opening number {n}" for n in range(openings)]
    group = np.arange(openings) // 2 if grouped else None
    spec: dict[str, Any] = {"prompts": {"texts": texts}, "splits": {}}
    if grouped:
        spec["prompts"]["groups"] = {"labels": [f"g{n // 2}" for n in range(openings)]}
    evidence = Evidence(
        concept, COSINES, strengths=len(strengths), intact=intact, group=group, shared_sd=SHARED
    )
    return pandas.DataFrame(rows), evidence, spec


def declared(evidence: Evidence, min_difference: float) -> Any:
    record = decision_record(evidence, VerdictRules(min_difference, 0.98))
    errors = [{"contrast": name, "shared_sd": sd} for name, sd in SHARED.items()]
    return {**record, "budget": {"errors": errors}}


@pytest.mark.parametrize("grouped", [False, True], ids=["each for itself", "in groups"])
@pytest.mark.parametrize("strengths", [(0.1,), (0.1, 0.2)], ids=["one strength", "two"])
def test_each_step_has_the_verdict_of_the_rules(grouped, strengths):
    scores, evidence, spec = world(3, openings=40, samples=2, strengths=strengths, grouped=grouped)
    found = verdict_by_min_difference(scores, declared(evidence, 0.15), spec)
    answers = {step: one.verdict for one in found for step in STEPS if one.low <= step <= one.high}
    assert answers == {step: judge(evidence, VerdictRules(step, 0.98)).verdict for step in STEPS}
    assert len(set(answers.values())) > 1, "a world in which the limit matters"


def test_neighbours_of_one_answer_stand_together_and_leave_no_gap():
    scores, evidence, spec = world(5, openings=20, samples=1, strengths=(0.1,), grouped=False)
    found = verdict_by_min_difference(scores, declared(evidence, 0.15), spec)
    assert found[0].low == STEPS[0]
    assert found[-1].high == STEPS[-1]
    for before, after in itertools.pairwise(found):
        assert after.low == pytest.approx(before.high + 0.01)
        assert after.verdict != before.verdict


def test_a_verdict_that_these_scores_do_not_give_again_has_no_neighbours():
    scores, evidence, spec = world(3, openings=40, samples=2, strengths=(0.1,), grouped=False)
    verdict = declared(evidence, 0.15)
    other = "Refuted" if verdict["verdict"] != "Refuted" else "Supported"
    assert verdict_by_min_difference(scores, {**verdict, "verdict": other}, spec) == []


@pytest.mark.parametrize("lost", ["intact", "multi", "missing"])
def test_without_what_the_rules_need_there_is_nothing_to_show(lost):
    scores, evidence, spec = world(3, openings=40, samples=2, strengths=(0.1,), grouped=False)
    verdict = declared(evidence, 0.15)
    if lost == "intact":
        scores = scores.drop(columns="intact")
    elif lost == "multi":
        scores = scores[scores["arm"] != "multi"]
    else:
        del verdict["missing"]
    assert verdict_by_min_difference(scores, verdict, spec) == []
