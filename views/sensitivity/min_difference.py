"""The verdict under another smallest practical difference, from the stored scores."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from math import nan

import pandas

from loopscope.numerics.verdict.budget_error import BudgetError
from loopscope.numerics.verdict.cells import NONE
from loopscope.numerics.verdict.decision import PRIMARY, Evidence, VerdictRules, judge
from loopscope.numerics.verdict.evidence import CONCEPT, INTACT, evidence_of
from loopscope.specs.artifacts.verdict import Verdict
from loopscope.specs.spec_json import SteeringJson
from loopscope.views.scored_cells import scored_cells

STEPS = tuple(round(0.01 * step, 2) for step in range(1, 51))
"""The smallest practical differences that are tried."""


@dataclass(frozen=True)
class Range:
    """Values of ``minDifference`` from ``low`` to ``high``, both tried, that give one verdict."""

    low: float
    high: float
    verdict: str


def verdict_by_min_difference(
    scores: pandas.DataFrame, verdict: Verdict, spec: SteeringJson
) -> list[Range]:
    """Return the verdict at every step, neighbours of one answer together.

    ``scores`` is ``steering_scores.parquet``, ``spec`` the Steering's own. All but the smallest
    difference stays as declared. Empty where the declared verdict cannot be had again from the
    stored scores: made by other rules, or without what they hold today.
    """
    if not {"min_difference", "max_arm_cosine", "arm_cosines", "missing"} <= set(verdict):
        return []
    evidence = _evidence(scores, verdict, spec)
    if evidence is None:
        return []

    def word(min_difference: float) -> str:
        return judge(evidence, VerdictRules(min_difference, verdict["max_arm_cosine"])).verdict

    if word(verdict["min_difference"]) != verdict["verdict"]:
        return []
    found = [(step, word(step)) for step in STEPS]
    ranges = []
    for answer, same in groupby(found, key=lambda one: one[1]):
        steps = [step for step, _ in same]
        ranges.append(Range(steps[0], steps[-1], answer))
    return ranges


def _evidence(scores: pandas.DataFrame, verdict: Verdict, spec: SteeringJson) -> Evidence | None:
    """Return what the verdict rests on, None where an arm or a column is missing."""
    arms = {arm for pair in PRIMARY for arm in pair}
    if not {CONCEPT, INTACT} <= set(scores) or not arms | {NONE} <= set(scores["arm"]):
        return None
    run = scored_cells(scores, spec, outcomes=(CONCEPT, INTACT))
    if not run.common_strengths():
        return None
    budget = verdict.get("budget")
    errors = {
        error["contrast"]: BudgetError(nan, nan, error["shared_sd"])
        for error in (budget["errors"] if budget else [])
        if error["shared_sd"] is not None
    }
    return evidence_of(run, verdict["arm_cosines"], verdict["missing"], errors)
