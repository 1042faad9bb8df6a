"""What the gate's count of children is worth: a null, controls and resamples of the prompts.

The statistic is the same throughout: the largest number of children over the candidates, since a
gate that opens for *some* anchor must be compared with the best of as many matched anchors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loopscope.numerics.controls import Control, deciding_p, exceedance
from loopscope.numerics.features import (
    LatentStatistics,
    latent_statistics,
)
from loopscope.numerics.gate import (
    NULL_ANCHORS_MIN,
    GateEvidence,
    GateRules,
    Outcome,
    SelectionPower,
    SelectionThresholds,
    Verdict,
    decide,
    outcome_of,
    selective_latents,
)
from loopscope.numerics.mapping import Indices
from loopscope.numerics.multiple_tests import Floats
from loopscope.numerics.perfect import perfect_latents_needed, perfect_p_value
from loopscope.numerics.sampling import keyed_generator
from loopscope.numerics.splits import DiscoverRows, require_discover

PROMPTS_TRIED_MAX = 200
"""So many prompts a side are enough for any dictionary and any q that makes sense."""


@dataclass(frozen=True)
class MatchedNull:
    """Children of coarse latents that fire as often as the candidates but are none.

    ``anchors`` [candidates, draws] are the latents, ``best`` [draws] the largest count of each
    draw; ``eligible`` counts the latents to choose from, ``rate_difference`` is the mean distance
    in firing rate (NaN without draws).
    """

    anchors: Indices
    best: Indices
    eligible: int
    rate_difference: float

    @property
    def draws(self) -> int:
        """How many sets of matched anchors there are, each anchor of a candidate in one of them."""
        return len(self.best)

    def p_value(self, observed: int) -> float:
        """Return (1 + draws with at least ``observed`` children) / (1 + draws)."""
        return exceedance(self.best, observed)

    def percentile(self, observed: int) -> float:
        """Return 100 (1 - p): ties count against the candidates; NaN without draws."""
        return 100 * (1 - self.p_value(observed)) if self.draws else float("nan")


def matched_null(
    rows: DiscoverRows, candidates: Indices, children: Indices, draws_max: int, seed: int
) -> MatchedNull:
    """Draw sets of anchors, one for each candidate, matched on the firing rate over all prompts.

    ``children`` [coarse] is the count of every coarse latent. A candidate's pool are the
    ``draws_max`` latents that fire, are no candidates and come nearest to its rate, but no more
    than the nearest quarter of these where that leaves a hundred: the whole of a small dictionary
    would match nothing. Each anchor of a pool is used once, in an order of its own.
    """
    require_discover(rows)
    entries = rows.activations.indices[rows.activations.data > 0]
    rate = np.bincount(entries, minlength=len(children)) / rows.prompts
    eligible = np.setdiff1d(np.flatnonzero(rate > 0), candidates)
    nearest = max(NULL_ANCHORS_MIN, eligible.size // 4)
    draws = min(draws_max, nearest, eligible.size) if candidates.size else 0
    anchors = np.empty((candidates.size, draws), dtype=np.int64)
    for place, latent in enumerate(candidates):
        generator = keyed_generator("gate null", seed, int(latent))
        shuffled = generator.permutation(eligible)
        distance = np.abs(rate[shuffled] - rate[latent])
        pool = shuffled[np.argsort(distance, kind="stable")[:draws]]
        anchors[place] = generator.permutation(pool)
    best = children[anchors].max(axis=0) if draws else np.empty(0, dtype=np.int64)
    distances = np.abs(rate[anchors] - rate[candidates][:, None])
    difference = float(distances.mean()) if draws else float("nan")
    return MatchedNull(anchors, best, int(eligible.size), difference)


def select_candidates(
    statistics: LatentStatistics, thresholds: SelectionThresholds, top: int
) -> Indices:
    """Return the ``top`` selective latents by selectivity times target firing rate, best first."""
    passing = np.flatnonzero(selective_latents(statistics, thresholds))
    score = statistics.selectivity[passing] * statistics.firing_rate_target[passing]
    return passing[np.lexsort((passing, -score))][:top]


def selection_power(rows: DiscoverRows, q_max: float, top: int) -> SelectionPower:
    """Return whether ``top`` perfect latents could have passed the q of these prompts.

    Benjamini and Hochberg 1995: k latents with the same p pass together if p ≤ k q / m.
    """
    require_discover(rows)
    p_value = latent_statistics(rows).p_value
    tested = max(1, int((~np.isnan(p_value)).sum()))
    targets = int(rows.is_target.sum())

    def needed(p: float) -> int:
        return perfect_latents_needed(p, tested, q_max)

    smallest = perfect_p_value(targets, rows.prompts - targets)
    enough = 2
    most = min(top, tested)
    while needed(perfect_p_value(enough, enough)) > most and enough < PROMPTS_TRIED_MAX:
        enough += 1
    return SelectionPower(smallest, tested, needed(smallest), top, enough)


@dataclass(frozen=True)
class Resample:
    """What the gate says of one half of the prompts."""

    best_count: int
    percentile: float
    outcome: Outcome


@dataclass(frozen=True)
class Counts:
    """Children of every coarse latent: by the declared rule, and as the null compares them."""

    rule: Indices
    compared: Indices


@dataclass(frozen=True)
class Question:
    """What is asked: the selection, its ``top``, the gate's limits, resamples and seed."""

    selection: SelectionThresholds
    top: int
    gate: GateRules
    resamples: int
    seed: int


def resample(rows: DiscoverRows, counts: Counts, question: Question, number: int) -> Resample:
    """Select again on half of the prompts of each condition, whole groups, and ask the gate.

    Halves without replacement vary about the whole as bootstrap resamples do (Meinshausen and
    Buhlmann 2010, section 2), but no prompt counts twice: a test on them is a test on as many
    prompts as there are, where duplicates would make every p too small. The children stay those
    of the full sample: cosines do not depend on prompts.
    """
    drawn = rows.halved(keyed_generator("gate resample", question.seed, number))
    gate = question.gate
    candidates = select_candidates(latent_statistics(drawn), question.selection, question.top)
    null = matched_null(drawn, candidates, counts.compared, gate.null_anchors, question.seed)
    percentile = null.percentile(best(counts.compared, candidates))
    count = best(counts.rule, candidates)
    powerless = not candidates.size and _power(drawn, question).is_missing
    return Resample(count, percentile, outcome_of(count, percentile, gate, powerless=powerless))


def _power(rows: DiscoverRows, question: Question) -> SelectionPower:
    return selection_power(rows, question.selection.q_max, question.top)


@dataclass(frozen=True)
class Calibration:
    """The gate's answer with every draw behind it."""

    evidence: GateEvidence
    outcome: Outcome
    verdict: Verdict
    doubts: list[str]
    null: MatchedNull
    controls: Sequence[Control]
    resamples: list[Resample]


def calibrate(
    rows: DiscoverRows,
    candidates: Indices,
    counts: Counts,
    controls: Sequence[Control],
    question: Question,
    on_resample: Callable[[int], None] = lambda done: None,
) -> Calibration:
    """Return the gate's verdict over ``candidates``, compared with null, controls and halves."""
    gate, seed = question.gate, question.seed
    null = matched_null(rows, candidates, counts.compared, gate.null_anchors, seed)
    count = best(counts.rule, candidates)
    percentile = null.percentile(best(counts.compared, candidates))
    resamples = []
    for number in range(question.resamples):
        on_resample(number)
        resamples.append(resample(rows, counts, question, number))
    power = _power(rows, question)
    powerless = not candidates.size and power.is_missing
    outcome = outcome_of(count, percentile, gate, powerless=powerless)
    same = sum(found.outcome == outcome for found in resamples)
    evidence = GateEvidence(
        candidates=len(candidates),
        power=power,
        best_count=count,
        null_draws=null.draws,
        percentile=percentile,
        control_p=deciding_p(controls),
        stability=same / len(resamples),
    )
    return Calibration(evidence, outcome, *decide(evidence, gate), null, controls, resamples)


def best(counts: Indices, candidates: Indices) -> int:
    """Return the largest count over the candidates, 0 without any."""
    return int(counts[candidates].max()) if candidates.size else 0


def percentile_of_each(null: MatchedNull, counts: Indices, candidates: Indices) -> Floats:
    """Return each candidate's percentile among its own matched anchors, NaN without any."""
    if not null.draws:
        return np.full(candidates.size, np.nan)
    return np.array(
        [
            100 * (1 - exceedance(counts[pool], int(counts[latent])))
            for latent, pool in zip(candidates, null.anchors, strict=True)
        ]
    )
