"""The gate at other settings than the declared ones, for a report that says what they change."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow
import torch
from numpy.typing import NDArray

from loopscope.numerics.gate.calibration import Counts, Selected, selected_at
from loopscope.numerics.gate.controls import Control
from loopscope.numerics.gate.matching import Comparison
from loopscope.numerics.gate.rule import ChildThresholds, behaves_like_child
from loopscope.numerics.gate.settings import AlignedPairs, Children, GateAt, Limits, gate_at
from loopscope.numerics.latents.mapping import Indices, correlations
from loopscope.specs.artifacts.mapping import GATE_SETTINGS
from loopscope.worker.context import StageContext
from loopscope.worker.stages.mapping.calibrated_gate import CalibratedGate
from loopscope.worker.stages.mapping.gate_controls import deciding_controls
from loopscope.worker.stages.mapping.pair import Pair
from loopscope.worker.stages.mapping.sides import Rules, Side
from loopscope.worker.stages.tables import write_table

COSINES = tuple(round(0.2 + 0.05 * step, 2) for step in range(9))
CORRELATIONS = (0.0, 0.1, 0.2, 0.3, 0.5)
"""Values that are asked for beside the declared ones. Under the strict rule, which alone asks for a
correlation, every other cosine is, or there would be too many combinations."""


def write_gate_settings(
    coarse: Side,
    fine: Side,
    candidates: Indices,
    pair: Pair,
    calibrated: CalibratedGate,
    rules: Rules,
    context: StageContext,
    out: Path,
) -> None:
    """Ask the gate at every combination of settings and write what it rests on.

    Nothing is written where the geometry does not list all pairs at the declared cosine; a cosine
    at which it does not is left out.
    """
    grid = _limits(pair, rules)
    if not grid:
        return
    counted = _counts(coarse, fine, pair, calibrated, rules, grid)
    selected = _selected(coarse, candidates, calibrated, rules)
    asked = _Asked(coarse, fine, pair, rules)
    total = len(grid) * len(selected)
    found = gate_at(
        counted,
        selected,
        asked.children,
        asked.controls,
        calibrated.question,
        lambda done: context.progress("OtherSettings", done, total, "settings"),
    )
    context.progress("OtherSettings", total, total, "settings")
    write_table(out, GATE_SETTINGS, _columns(found))


def _limits(pair: Pair, rules: Rules) -> list[Limits]:
    """Return the pairs of limits that are asked for, the declared one among them; or none."""
    lowest = float(pair.neighbours.floor.max(initial=0))
    own = rules.child
    if np.float32(own.cosine_min) < np.float32(lowest):
        return []
    strict = rules.rule == "strict"
    cosines = sorted({own.cosine_min, *(COSINES[::2] if strict else COSINES)})
    correlated = sorted({own.correlation_min, *(CORRELATIONS if strict else ())})
    return [
        (cosine, correlation)
        for cosine in cosines
        if np.float32(cosine) >= np.float32(lowest) and cosine >= rules.cosine_partial
        for correlation in correlated
    ]


def _counts(
    coarse: Side,
    fine: Side,
    pair: Pair,
    calibrated: CalibratedGate,
    rules: Rules,
    grid: Sequence[Limits],
) -> dict[Limits, Counts]:
    """Return the children of every coarse latent at each pair of limits."""
    near = pair.neighbours
    left = np.repeat(np.arange(near.rows), np.diff(near.indptr))
    kept = near.cosine >= np.float32(min(cosine for cosine, _ in grid))
    pairs = left[kept], near.fine[kept].astype(np.int64)
    selective = fine.statistics.selectivity >= rules.child.fine_selectivity_min
    if rules.rule == "strict":
        aligned = AlignedPairs.of(
            pairs, near.cosine[kept], coarse.all_prompts, fine.all_prompts, selective
        )
    else:  # nothing asks for a correlation
        unknown = np.full(pairs[0].size, np.nan)
        aligned = AlignedPairs(pairs[0], near.cosine[kept], unknown, selective[pairs[1]])
    found = {}
    for limits in grid:
        counts = aligned.counts(limits, near.rows)
        rule, compared = (
            (counts.cosine, counts.cosine)
            if rules.rule == "cosine"
            else (counts.strict, counts.correlated)
        )
        found[limits] = Counts(rule, Comparison.of(compared, calibrated.covariates))
    return found


def _selected(
    coarse: Side, candidates: Indices, calibrated: CalibratedGate, rules: Rules
) -> list[tuple[float, Selected, list[Selected]]]:
    """Return each q, rising, with what it selects in all prompts and in every half.

    What the declared one selects is what the mapping was given.
    """
    found = []
    for place, q_max in enumerate((rules.selection.q_max, *rules.other_q)):
        own = selected_at(q_max, coarse.statistics, coarse.rows, calibrated.question)
        if not place:
            own = Selected(candidates, own.power)
        found.append((q_max, own, [half[place] for half in calibrated.halves]))
    return sorted(found, key=lambda one: one[0])


class _Asked:
    """What candidates have at a pair of limits: their children, and the controls that decide."""

    def __init__(self, coarse: Side, fine: Side, pair: Pair, rules: Rules) -> None:
        self._coarse, self._fine, self._pair, self._rules = coarse, fine, pair, rules
        self._correlation: Callable[[int], NDArray[np.float64]] = functools.cache(self._correlate)

    def children(self, limits: Limits, candidates: Indices) -> Children:
        """Return the children of each candidate, by number."""
        aligned, behaves = self._marks(limits, candidates)
        both = aligned & behaves
        return {
            int(latent): np.flatnonzero(row) for latent, row in zip(candidates, both, strict=True)
        }

    def controls(self, limits: Limits, candidates: Indices) -> list[Control]:
        """Return the controls that decide."""
        rows = self._coarse.decoder[torch.from_numpy(candidates)]
        law, rules = self._pair.law, self._rules
        return deciding_controls(rows, *self._marks(limits, candidates), law, limits[0], rules)

    def _marks(
        self, limits: Limits, candidates: Indices
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which fine latents reach the cosine, and which behave like a child's."""
        shape = len(candidates), self._fine.all_prompts.latents
        aligned, behaves = np.zeros(shape, dtype=np.bool_), np.ones(shape, dtype=np.bool_)
        thresholds = ChildThresholds(*limits, self._rules.child.fine_selectivity_min)
        for place, latent in enumerate(candidates.tolist()):
            listed, cosine = self._pair.neighbours.of(latent)
            aligned[place, listed[cosine >= np.float32(limits[0])]] = True
            if self._rules.rule == "strict":
                behaves[place] = behaves_like_child(
                    "strict",
                    self._correlation(latent),
                    self._fine.statistics.selectivity,
                    thresholds,
                )
        return aligned, behaves

    def _correlate(self, latent: int) -> NDArray[np.float64]:
        fine = self._fine.all_prompts
        one = np.array([latent], dtype=np.int64)
        (found,) = correlations(self._coarse.all_prompts, fine, one, np.arange(fine.latents))
        return np.asarray(found, dtype=np.float64)


def _columns(found: Sequence[GateAt]) -> dict[str, NDArray[np.generic] | pyarrow.Array]:
    def lists(rows: Sequence[NDArray[np.generic]]) -> pyarrow.Array:
        whole = [row.astype(np.int32).tolist() for row in rows]
        return pyarrow.array(whole, pyarrow.list_(pyarrow.int32()))

    nothing = [np.empty(0, dtype=np.int64)]
    return {
        "min_cosine": np.array([one.limits[0] for one in found]),
        "min_correlation": np.array([one.limits[1] for one in found]),
        "max_q": np.array([one.q_max for one in found]),
        "candidates": lists([one.selected.candidates for one in found]),
        "children_of": lists([np.array([len(c) for c in one.children], int) for one in found]),
        "children": lists([np.concatenate([*nothing, *one.children]) for one in found]),
        "best_count": np.array([one.best_count for one in found]),
        "mean_rank": np.array([one.mean_rank for one in found]),
        "percentile": np.array([one.percentile for one in found]),
        "null_anchors": np.array([one.null_draws for one in found]),
        "control_p": np.array([one.control_p for one in found]),
        "needed": np.array([one.selected.power.needed for one in found]),
        "half_counts": lists([one.half_counts for one in found]),
        "half_passes": lists([one.half_passes for one in found]),
        "half_powerless": lists([one.half_powerless for one in found]),
    }
