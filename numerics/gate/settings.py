"""The gate asked again with another cosine, correlation or q: what a run with it would answer.

Halves of the prompts and the anchors that are matched with a set of candidates depend on neither
the cosine nor the correlation, so they are drawn once. Counts of children, ranks and the controls
that decide are made anew at each setting, from the same keys as in a run of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.gate.calibration import Counts, Question, Selected, best
from loopscope.numerics.gate.controls import Control, deciding_p
from loopscope.numerics.gate.counting import PAIRS_PER_BLOCK
from loopscope.numerics.gate.matching import Comparison, MatchedNulls
from loopscope.numerics.gate.rule import ChildCounts
from loopscope.numerics.latents.mapping import ActivationColumns, Indices, pair_correlations
from loopscope.numerics.statistics.multiple_tests import Floats

Limits = tuple[float, float]
"""Least cosine and least correlation of a child."""
Children = Mapping[int, Indices]
"""The children of each candidate."""


@dataclass(frozen=True)
class GateAt:
    """What the gate rests on at one setting; how many children it asks for is still open.

    ``children`` are those of each candidate, best candidate first. ``half_counts``,
    ``half_passes`` (whether the mean rank reaches minPercentile) and ``half_powerless`` are one
    entry a half.
    """

    limits: Limits
    q_max: float
    selected: Selected
    children: list[Indices]
    best_count: int
    mean_rank: float
    percentile: float
    null_draws: int
    control_p: float
    half_counts: Indices
    half_passes: NDArray[np.bool_]
    half_powerless: NDArray[np.bool_]


def gate_at(
    counts: Mapping[Limits, Counts],
    selected: Sequence[tuple[float, Selected, Sequence[Selected]]],
    children: Callable[[Limits, Indices], Children],
    controls: Callable[[Limits, Indices], Sequence[Control]],
    question: Question,
    on_setting: Callable[[int], None] = lambda done: None,
) -> list[GateAt]:
    """Return the gate at every pair of limits with every q.

    ``counts`` has the children of all coarse latents at each pair of limits, ``selected`` each q
    with what it selects in all prompts and in every half. ``children`` and ``controls`` are asked
    once for each pair of limits and each set of candidates.
    """
    nulls = MatchedNulls(question.gate.null_anchors, question.seed)

    def null(compared: Comparison, candidates: Indices) -> tuple[float, float, int]:
        found = nulls.of(compared, candidates)
        return found.mean_rank, found.percentile, found.draws

    settings: list[GateAt] = []
    for limits, counted in counts.items():
        ranks: dict[tuple[int, ...], tuple[float, float, int]] = {}
        beaten: dict[tuple[int, ...], tuple[Children, float]] = {}
        for q_max, own, halves in selected:
            on_setting(len(settings))
            for candidates in [own.candidates, *(half.candidates for half in halves)]:
                key = tuple(candidates.tolist())
                if key not in ranks:
                    ranks[key] = null(counted.compared, candidates)
            key = tuple(own.candidates.tolist())
            if key not in beaten:
                p = deciding_p(controls(limits, own.candidates))
                beaten[key] = children(limits, own.candidates), p
            below, control_p = beaten[key]
            mean_rank, percentile, null_draws = ranks[key]
            passes = [ranks[tuple(half.candidates.tolist())][1] for half in halves]
            settings.append(
                GateAt(
                    limits=limits,
                    q_max=q_max,
                    selected=own,
                    children=[below[int(candidate)] for candidate in own.candidates],
                    best_count=best(counted.rule, own.candidates),
                    mean_rank=mean_rank,
                    percentile=percentile,
                    null_draws=null_draws,
                    control_p=control_p,
                    half_counts=np.array(
                        [best(counted.rule, half.candidates) for half in halves], dtype=np.int64
                    ),
                    half_passes=np.array(passes) >= question.gate.percentile_min,
                    half_powerless=np.array([half.powerless for half in halves], dtype=np.bool_),
                )
            )
    return settings


@dataclass(frozen=True)
class AlignedPairs:
    """All pairs of a coarse and a fine latent from some cosine on: place by place.

    ``correlation`` is NaN where one of the two does not vary, ``selective`` whether the fine
    latent is selective enough for a child under the strict rule.
    """

    coarse: Indices
    cosine: NDArray[np.float32]
    correlation: Floats
    selective: NDArray[np.bool_]

    @staticmethod
    def of(
        pairs: tuple[Indices, Indices],
        cosine: NDArray[np.float32],
        coarse: ActivationColumns,
        fine: ActivationColumns,
        selective: NDArray[np.bool_],
    ) -> AlignedPairs:
        """Correlate the ``pairs`` (coarse, fine); ``selective`` is [fine]."""
        left, right = pairs
        correlation = np.full(left.size, np.nan)
        known = np.flatnonzero((coarse.spread[left] > 0) & (fine.spread[right] > 0))
        for start in range(0, known.size, PAIRS_PER_BLOCK):
            places = known[start : start + PAIRS_PER_BLOCK]
            correlation[places] = pair_correlations(coarse, fine, left[places], right[places])
        return AlignedPairs(left, cosine, correlation, selective[right])

    def counts(self, limits: Limits, rows: int) -> ChildCounts:
        """Return the children of all coarse latents [rows] at other limits."""
        aligned = self.cosine >= np.float32(limits[0])
        correlated = aligned & (self.correlation >= limits[1])

        def number(chosen: NDArray[np.bool_]) -> Indices:
            return np.bincount(self.coarse[chosen], minlength=rows)

        return ChildCounts(number(aligned), number(correlated), number(correlated & self.selective))
