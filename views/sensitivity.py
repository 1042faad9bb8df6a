"""What a verdict would be under another smallest practical difference, from the stored scores."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas
from numpy.typing import NDArray

from loopscope.numerics.verdict.decision import PRIMARY, Evidence, VerdictRules, judge
from loopscope.reconcilers.steering import scored_openings
from loopscope.specs.artifacts.verdict import Verdict
from loopscope.specs.spec_json import SteeringJson

Floats = NDArray[np.float64]

STEPS = tuple(round(0.01 * step, 2) for step in range(1, 51))
"""The smallest practical differences that are tried."""
UNSTEERED = "none"


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
    if not {"concept", "intact"} <= set(scores) or not arms | {UNSTEERED} <= set(scores["arm"]):
        return None
    reached = [set(scores.loc[scores["arm"] == arm, "strength"]) for arm in sorted(arms)]
    strengths = sorted(set.intersection(*reached))
    if not strengths:
        return None
    openings = sorted(scores["prompt_id"].unique())
    hits = scores.assign(concept=scores["concept"] * scores["intact"])

    def of(table: pandas.DataFrame, column: str, arm: str) -> Floats:
        chosen = [0.0] if arm == UNSTEERED else strengths
        rows = table[(table["arm"] == arm) & table["strength"].isin(chosen)]
        mean = rows.pivot_table(column, "prompt_id", "sample", "mean").loc[openings]
        return np.asarray(mean, dtype=np.float64)

    known = [*sorted(arms), UNSTEERED]
    budget = verdict.get("budget")
    errors = budget["errors"] if budget else []
    return Evidence(
        {arm: of(scores, "concept", arm) for arm in known},
        verdict["arm_cosines"],
        verdict["missing"],
        strengths=len(strengths),
        intact={arm: _share(of(hits, "concept", arm), of(hits, "intact", arm)) for arm in known},
        group=_groups(spec, openings),
        shared_sd={e["contrast"]: e["shared_sd"] for e in errors if e["shared_sd"] is not None},
    )


def _share(hits: Floats, texts: Floats) -> Floats:
    """Return the rate of hits among intact texts of each opening, NaN without any."""
    all_texts = texts.mean(axis=1)
    known = all_texts > 0
    return np.where(known, hits.mean(axis=1) / np.where(known, all_texts, 1.0), np.nan)


def _groups(spec: SteeringJson, openings: list[str]) -> NDArray[np.int64] | None:
    groups = {opening["id"]: opening.get("group") for opening in scored_openings(spec)}
    numbers = [groups[opening] for opening in openings]
    return None if None in numbers else np.array(numbers, dtype=np.int64)
