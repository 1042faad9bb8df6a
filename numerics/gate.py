"""Readings of a pair, children of a coarse latent, and what the gate is worth.

The count "fine latents above the cut-off" means little alone: on a trained pair 77 % of all
coarse latents passed it. So both rules are counted for every coarse latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from numerics.features import LatentStatistics
from numerics.mapping import ActivationColumns, CosineBlock, Indices, correlations
from numerics.multiple_tests import Floats

GateRule = Literal["cosine", "strict"]

READINGS = ("match", "partial", "co-occurring", "geometric-only", "unrelated", "unobserved")


@dataclass(frozen=True)
class SelectionThresholds:
    """When a latent counts as selective for the target."""

    selectivity_min: float
    firing_rate_target_min: float
    firing_rate_neutral_max: float
    q_max: float


@dataclass(frozen=True)
class ChildThresholds:
    """When a fine latent counts as the child of a coarse one."""

    cosine_min: float
    correlation_min: float
    fine_selectivity_min: float


@dataclass(frozen=True)
class ChildCounts:
    """Children of every coarse latent by both rules, int64 [coarse]."""

    cosine: Indices
    strict: Indices


def selective_latents(
    statistics: LatentStatistics, thresholds: SelectionThresholds
) -> NDArray[np.bool_]:
    """Return which latents pass every selection threshold, ``top`` aside; untested ones fail."""
    return (
        (statistics.selectivity >= thresholds.selectivity_min)
        & (statistics.firing_rate_target >= thresholds.firing_rate_target_min)
        & (statistics.firing_rate_neutral <= thresholds.firing_rate_neutral_max)
        & (statistics.q_value <= thresholds.q_max)
    )


def readings(
    cosine: NDArray[np.floating],
    correlation: Floats,
    cosine_min: float,
    cosine_partial: float,
    correlation_min: float,
) -> NDArray[np.str_]:
    """Return the name of where each pair lies, one of ``READINGS``.

    ``unobserved`` is a pair without a correlation (a latent that is silent, or constant, over
    all prompts). With r >= correlation_min a pair is a ``match`` from cosine_min on,
    ``partial`` from cosine_partial on, and else ``co-occurring``; below it ``geometric-only``
    from cosine_min on, and else ``unrelated``.
    """
    correlated = correlation >= correlation_min
    aligned = cosine >= cosine_min
    return np.select(
        [
            np.isnan(correlation),
            correlated & aligned,
            correlated & (cosine >= cosine_partial),
            correlated,
            aligned,
        ],
        ["unobserved", "match", "partial", "co-occurring", "geometric-only"],
        default="unrelated",
    )


def is_child(
    rule: GateRule,
    cosine: NDArray[np.floating],
    correlation: Floats,
    fine_selectivity: Floats,
    thresholds: ChildThresholds,
) -> NDArray[np.bool_]:
    """Return which fine latents are children by ``rule``, in the shape of ``cosine``.

    ``cosine`` asks for geometry alone, so a latent that never fires can be a child; ``strict``
    asks for the correlation and the selectivity of the fine latent as well.
    """
    aligned = cosine >= thresholds.cosine_min
    if rule == "cosine":
        return aligned
    return (
        aligned
        & (correlation >= thresholds.correlation_min)
        & (fine_selectivity >= thresholds.fine_selectivity_min)
    )


def count_children(
    block: CosineBlock,
    coarse: ActivationColumns,
    fine: ActivationColumns,
    fine_selectivity: Floats,
    thresholds: ChildThresholds,
) -> ChildCounts:
    """Return the children within one block of cosines, one entry per coarse row of the block.

    Correlations are computed only between rows and columns with a pair that the cosine and the
    fine selectivity let through.
    """
    rows, columns = block.cosines.shape
    aligned = block.cosines >= thresholds.cosine_min
    cosine = aligned.sum(dim=1).cpu().numpy().astype(np.int64)

    selective = fine_selectivity[block.fine_start : block.fine_start + columns]
    chosen = np.flatnonzero(selective >= thresholds.fine_selectivity_min)
    possible = aligned[:, torch.from_numpy(chosen).to(aligned.device)].cpu().numpy()
    active_rows = np.flatnonzero(possible.any(axis=1))
    active_columns = np.flatnonzero(possible.any(axis=0))
    strict = np.zeros(rows, dtype=np.int64)
    if active_rows.size:
        r = correlations(
            coarse,
            fine,
            block.coarse_start + active_rows,
            block.fine_start + chosen[active_columns],
        )
        accepted = possible[np.ix_(active_rows, active_columns)] & (r >= thresholds.correlation_min)
        strict[active_rows] = accepted.sum(axis=1)
    return ChildCounts(cosine, strict)
