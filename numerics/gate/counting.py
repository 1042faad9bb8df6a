"""The children of coarse latents, counted by each rule from aligned pairs of latents."""

from __future__ import annotations

import numpy as np

from loopscope.numerics.gate.rule import ChildCounts, ChildThresholds
from loopscope.numerics.latents.mapping import (
    ActivationColumns,
    CosineBlock,
    Indices,
    pair_correlations,
)
from loopscope.numerics.statistics.multiple_tests import Floats

PAIRS_PER_BLOCK = 100_000


def count_children(
    block: CosineBlock,
    coarse: ActivationColumns,
    fine: ActivationColumns,
    fine_selectivity: Floats,
    thresholds: ChildThresholds,
) -> ChildCounts:
    """Return the children within one block of cosines, one entry per coarse row of the block."""
    aligned = (block.cosines >= thresholds.cosine_min).nonzero().cpu().numpy()
    row, column = aligned.T
    pairs = row, column + block.fine_start
    first, rows = block.coarse_start, block.cosines.shape[0]
    return count_pairs(pairs, rows, first, coarse, fine, fine_selectivity, thresholds)


def count_pairs(
    pairs: tuple[Indices, Indices],
    rows: int,
    first: int,
    coarse: ActivationColumns,
    fine: ActivationColumns,
    fine_selectivity: Floats,
    thresholds: ChildThresholds,
) -> ChildCounts:
    """Return the children of ``rows`` coarse latents from ``first`` on, given all aligned pairs.

    ``pairs`` are the places of coarse latents among these rows, and fine latents. Correlations are
    computed where both vary: no other pair has one.
    """
    row, column = pairs
    correlated, strict = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    known = np.flatnonzero((coarse.spread[row + first] > 0) & (fine.spread[column] > 0))
    for start in range(0, known.size, PAIRS_PER_BLOCK):
        places = known[start : start + PAIRS_PER_BLOCK]
        left, right = row[places], column[places]
        r = pair_correlations(coarse, fine, left + first, right)
        accepted = r >= thresholds.correlation_min
        selective = fine_selectivity[right] >= thresholds.fine_selectivity_min
        correlated += np.bincount(left[accepted], minlength=rows)
        strict += np.bincount(left[accepted & selective], minlength=rows)
    return ChildCounts(np.bincount(row, minlength=rows), correlated, strict)
