"""The calibrated gate: the count of children beside a null, controls and halves.

Two statistics: the largest number of children of a candidate, which the declared rule asks for,
and the candidates' mean rank among matched anchors, which shows whether that is anything special.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from loopscope.numerics.gate.controls import Control, deciding_p
from loopscope.numerics.gate.matching import Comparison, MatchedNull, MatchedNulls, matched_null
from loopscope.numerics.gate.rule import (
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
from loopscope.numerics.latents.features import (
    LatentStatistics,
    latent_statistics,
    latents_tested,
)
from loopscope.numerics.latents.mapping import Indices
from loopscope.numerics.latents.splits import DiscoverRows, require_discover
from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.statistics.perfect import perfect_latents_needed, perfect_p_value

PROMPTS_TRIED_MAX = 200
"""This many prompts a side are enough for any dictionary and any q that makes sense."""


def select_candidates(
    statistics: LatentStatistics, thresholds: SelectionThresholds, top: int
) -> Indices:
    """Return the ``top`` selective latents by selectivity times target firing rate, best first."""
    passing = np.flatnonzero(selective_latents(statistics, thresholds))
    score = statistics.selectivity[passing] * statistics.firing_rate_target[passing]
    return passing[np.lexsort((passing, -score))][:top]


@dataclass(frozen=True)
class Selected:
    """What a selection finds; ``powerless``: nothing, and with so few prompts it could not."""

    candidates: Indices
    power: SelectionPower

    @property
    def powerless(self) -> bool:
        """Whether nothing was found, and nothing could have been."""
        return not self.candidates.size and self.power.is_missing


def selection_power(rows: DiscoverRows, q_max: float, top: int) -> SelectionPower:
    """Return whether ``top`` perfect latents could have passed the q of these prompts.

    Benjamini and Hochberg 1995: k latents with the same p pass together if p ≤ k q / m.
    """
    return power_given(latents_tested(rows).size, rows, q_max, top)


def power_given(tested: int, rows: DiscoverRows, q_max: float, top: int) -> SelectionPower:
    """Return the same where it is known how many latents are tested."""
    require_discover(rows)
    tested = max(1, tested)
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
    """The gate's answer on one half of the prompts.

    ``selected``: what was selected in it by the declared q, then by each other one.
    """

    best_count: int
    mean_rank: float
    percentile: float
    outcome: Outcome
    selected: tuple[Selected, ...] = field(compare=False)


@dataclass(frozen=True)
class Counts:
    """Children of every coarse latent: by the declared rule, and as the null compares them."""

    rule: Indices
    compared: Comparison


@dataclass(frozen=True)
class Question:
    """What is asked: the selection, its ``top``, the gate's limits, resamples and seed.

    ``other_q``: what else is selected in every half, to be asked afterwards.
    """

    selection: SelectionThresholds
    top: int
    gate: GateRules
    resamples: int
    seed: int
    other_q: tuple[float, ...] = ()


class Halves:
    """Selection and gate on halves of the prompts of each condition, whole groups.

    Halves without replacement vary about the whole as bootstrap resamples do (Meinshausen and
    Buhlmann 2010, section 2), but no prompt counts twice: a test on them is a test on as many
    prompts as there are, where duplicates would make every p too small. Children, rates over text
    and decoders stay: they do not depend on the prompts.
    """

    def __init__(self, rows: DiscoverRows, counts: Counts, question: Question) -> None:
        """Leave out the latents that no half can choose, since all prompts cannot."""
        self._counts, self._question = counts, question
        self._asked = question.selection.q_max, *question.other_q
        self._latents, self._rows = choosable(rows, max(self._asked))
        self._nulls = MatchedNulls(question.gate.null_anchors, question.seed)

    def answer(self, number: int) -> Resample:
        """Select again on the half of this number, and ask the gate."""
        counts, question = self._counts, self._question
        drawn = self._rows.halved(keyed_generator("gate resample", question.seed, number))
        within, drawn = choosable(drawn, max(self._asked))
        statistics, latents = latent_statistics(drawn), self._latents[within]
        selected, *others = (
            selected_at(q, statistics, drawn, question, latents) for q in self._asked
        )
        null = self._nulls.of(counts.compared, selected.candidates)
        count = best(counts.rule, selected.candidates)
        powerless = selected.powerless
        outcome = outcome_of(count, null.percentile, question.gate, powerless=powerless)
        return Resample(count, null.mean_rank, null.percentile, outcome, (selected, *others))


def selected_at(
    q_max: float,
    statistics: LatentStatistics,
    rows: DiscoverRows,
    question: Question,
    latents: Indices | None = None,
) -> Selected:
    """Return what the selection finds in ``rows`` with another q.

    ``statistics`` are those of the rows, of all latents or of these ``latents``.
    """
    thresholds = replace(question.selection, q_max=q_max)
    chosen = select_candidates(statistics, thresholds, question.top)
    return Selected(
        chosen if latents is None else latents[chosen],
        power_given(int((~np.isnan(statistics.p_value)).sum()), rows, q_max, question.top),
    )


def choosable(rows: DiscoverRows, q_max: float) -> tuple[Indices, DiscoverRows]:
    """Return the latents that a selection at this q or a smaller one may choose, and their rows.

    Where it asks for a test, latents that fire on too few prompts for one cannot be candidates, and
    q is over the tested ones alone: most of a wide dictionary need not be looked at.
    """
    if q_max >= 1:
        return np.arange(rows.activations.shape[1]), rows
    tested = latents_tested(rows)
    return tested, rows.latents(tested)


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
    gate = question.gate
    null = matched_null(counts.compared, candidates, gate.null_anchors, question.seed)
    count = best(counts.rule, candidates)
    halves, resamples = Halves(rows, counts, question), []
    for number in range(question.resamples):
        on_resample(number)
        resamples.append(halves.answer(number))
    power = selection_power(rows, question.selection.q_max, question.top)
    powerless = not candidates.size and power.is_missing
    outcome = outcome_of(count, null.percentile, gate, powerless=powerless)
    same = sum(found.outcome == outcome for found in resamples)
    evidence = GateEvidence(
        candidates=len(candidates),
        power=power,
        best_count=count,
        text_measured=counts.compared.covariates.measured,
        null_draws=null.draws,
        mean_rank=null.mean_rank,
        percentile=null.percentile,
        control_p=deciding_p(controls),
        stability=same / len(resamples),
    )
    return Calibration(evidence, outcome, *decide(evidence, gate), null, controls, resamples)


def best(counts: Indices, candidates: Indices) -> int:
    """Return the largest count over the candidates, 0 without any."""
    return int(counts[candidates].max()) if candidates.size else 0
