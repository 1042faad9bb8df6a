"""What the gate's count of children is worth: a null, a control and resamples of the prompts.

Two statistics: the largest number of children of a candidate, which the declared rule asks for,
and the candidates' mean rank among matched anchors, which says whether that is anything special.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from loopscope.numerics.features import (
    LatentStatistics,
    latent_statistics,
    perfect_p_value,
)
from loopscope.numerics.gate import (
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
from loopscope.numerics.mapping import Indices, inverse_norms
from loopscope.numerics.matching import Comparison, MatchedNull, exceedance, matched_null
from loopscope.numerics.sampling import keyed_generator
from loopscope.numerics.splits import DiscoverRows, require_discover

CONTROL_DICTIONARIES = 99
NUMBERS_PER_BLOCK = 2**20
PROMPTS_TRIED_MAX = 200
"""So many prompts a side are enough for any dictionary and any q that makes sense."""


def random_dictionary_counts(
    anchors: Float[Tensor, "anchors d_in"],
    allowed: NDArray[np.bool_],
    cosine_min: float,
    seed: int,
    dictionaries: int = CONTROL_DICTIONARIES,
) -> Indices:
    """Return the largest count of children in each of many random fine dictionaries.

    The decoder rows are uniform on the sphere, everything else stays: ``allowed`` [anchors, fine]
    says which fine latents behave like children. Only the part of a random unit vector in the
    span of the anchors matters; it is g / sqrt(|g|^2 + chi^2), g normal in that span and chi^2
    with the degrees of freedom of the rest (Muller 1959), so no dictionary is ever made.
    """
    if anchors.shape[0] == 0:
        return np.zeros(dictionaries, dtype=np.int64)
    rows = anchors.double().cpu()
    unit = rows * inverse_norms(rows)[:, None]
    basis, coordinates = torch.linalg.qr(unit.T)
    inside, outside = basis.shape[1], rows.shape[1] - basis.shape[1]
    step = max(1, NUMBERS_PER_BLOCK // inside)
    generator = keyed_generator("random dictionary", seed)
    counts = np.zeros((dictionaries, anchors.shape[0]), dtype=np.int64)
    for number in range(dictionaries):
        for start in range(0, allowed.shape[1], step):
            block = allowed[:, start : start + step]
            part = generator.standard_normal((block.shape[1], inside))
            rest = generator.chisquare(outside, block.shape[1]) if outside else 0.0
            length = np.sqrt((part**2).sum(axis=1) + rest)
            cosines = (part @ coordinates.numpy()).T / length
            counts[number] += ((cosines >= cosine_min) & block).sum(axis=1)
    return np.asarray(counts.max(axis=1), dtype=np.int64)


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
        return 1 if q_max >= 1 else max(1, math.ceil(p * tested / q_max)) if q_max else tested + 1

    smallest = perfect_p_value(targets, rows.prompts - targets)
    enough = 2
    most = min(top, tested)
    while needed(perfect_p_value(enough, enough)) > most and enough < PROMPTS_TRIED_MAX:
        enough += 1
    return SelectionPower(smallest, tested, needed(smallest), top, enough)


@dataclass(frozen=True)
class Resample:
    """What the gate says of one bootstrap resample of the prompts."""

    best_count: int
    mean_rank: float
    percentile: float
    outcome: Outcome


@dataclass(frozen=True)
class Counts:
    """Children of every coarse latent: by the declared rule, and as the null compares them."""

    rule: Indices
    compared: Comparison


@dataclass(frozen=True)
class Question:
    """What is asked: the selection, its ``top``, the gate's limits, resamples and seed."""

    selection: SelectionThresholds
    top: int
    gate: GateRules
    resamples: int
    seed: int


def resample(rows: DiscoverRows, counts: Counts, question: Question, number: int) -> Resample:
    """Select again on prompts drawn with replacement within each condition, and ask the gate.

    Children, rates over text and decoders stay: they do not depend on the prompts.
    """
    generator = keyed_generator("gate resample", question.seed, number)
    chosen = np.concatenate(
        [
            generator.choice(places, places.size)
            for places in (np.flatnonzero(rows.is_target), np.flatnonzero(~rows.is_target))
        ]
    )
    drawn = rows.taken(chosen)
    gate = question.gate
    candidates = select_candidates(latent_statistics(drawn), question.selection, question.top)
    null = matched_null(counts.compared, candidates, gate.null_anchors, question.seed)
    count = best(counts.rule, candidates)
    outcome = outcome_of(count, null.percentile, gate)
    return Resample(count, null.mean_rank, null.percentile, outcome)


@dataclass(frozen=True)
class Calibration:
    """The gate's answer with every draw behind it; ``control`` counts [random dictionaries]."""

    evidence: GateEvidence
    outcome: Outcome
    verdict: Verdict
    doubts: list[str]
    null: MatchedNull
    control: Indices
    resamples: list[Resample]


def calibrate(
    rows: DiscoverRows,
    candidates: Indices,
    counts: Counts,
    control: Indices,
    question: Question,
    on_resample: Callable[[int], None] = lambda done: None,
) -> Calibration:
    """Return the gate's verdict over ``candidates``, compared with null, control and resamples.

    ``control`` is the largest number of children in each of many dictionaries without meaning.
    """
    gate = question.gate
    null = matched_null(counts.compared, candidates, gate.null_anchors, question.seed)
    count = best(counts.rule, candidates)
    resamples = []
    for number in range(question.resamples):
        on_resample(number)
        resamples.append(resample(rows, counts, question, number))
    outcome = outcome_of(count, null.percentile, gate)
    same = sum(found.outcome == outcome for found in resamples)
    evidence = GateEvidence(
        candidates=len(candidates),
        power=selection_power(rows, question.selection.q_max, question.top),
        best_count=count,
        text_measured=counts.compared.covariates.measured,
        null_draws=null.draws,
        mean_rank=null.mean_rank,
        percentile=null.percentile,
        control_p=exceedance(control, count),
        stability=same / len(resamples),
    )
    return Calibration(evidence, outcome, *decide(evidence, gate), null, control, resamples)


def best(counts: Indices, candidates: Indices) -> int:
    """Return the largest count over the candidates, 0 without any."""
    return int(counts[candidates].max()) if candidates.size else 0
