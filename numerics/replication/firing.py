"""Differences of two decompositions of the same rows: thresholds rounded, norms folded.

Read off counts and sums of activations alone, which any table of features has. A threshold that is
rounded lets a latent fire, or not, where its activation lies between the two thresholds: so what a
latent lost or gained must be activations within that gap, and nothing else may have changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Precision = Literal["bfloat16", "float16"]

RELATIVE_MAX = 1e-4
"""Largest relative difference of two sums, or of a sum and what explains it, that is rounding."""


@dataclass(frozen=True)
class Firing:
    """On how many prompts each latent fires, with the sum and the largest of its activations.

    All [conditions, latents].
    """

    counts: Floats
    sums: Floats
    largest: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        """Conditions and latents."""
        return self.counts.shape


@dataclass(frozen=True)
class FiringRelation:
    """How many latents differ in count, in sum alone, and by how much at most (relative).

    ``scales`` are the smallest and the largest ratio of a latent's sums where every latent was
    multiplied by a number of its own and fires as before, else None.
    """

    flipped: int
    moved: int
    largest: float
    scales: tuple[float, float] | None = None


def firing_relation(first: Firing, second: Firing) -> FiringRelation:
    """Return how two tables of the same latents differ; both of one shape."""
    flipped = (first.counts != second.counts).any(axis=0)
    scale = np.maximum(np.abs(first.sums), np.abs(second.sums))
    apart = np.divide(
        np.abs(second.sums - first.sums), scale, out=np.zeros_like(scale), where=scale > 0
    )
    moved = (apart > RELATIVE_MAX).any(axis=0) & ~flipped
    scales = _scales(first, second) if not flipped.any() and moved.any() else None
    return FiringRelation(int(flipped.sum()), int(moved.sum()), float(apart.max()), scales)


def _scales(first: Firing, second: Firing) -> tuple[float, float] | None:
    alive = first.counts > 0
    ratios = np.where(alive, second.sums / np.where(alive, first.sums, 1), np.nan)
    peaks = np.where(alive, second.largest / np.where(alive, first.largest, 1), np.nan)
    own = alive.any(axis=0)
    low, high = (turn(ratios[:, own], axis=0) for turn in (np.nanmin, np.nanmax))
    is_one_number = np.allclose(low, high, rtol=RELATIVE_MAX) and np.allclose(
        ratios[alive], peaks[alive], rtol=RELATIVE_MAX
    )
    return (float(low.min()), float(high.max())) if is_one_number else None


def rounded(values: Floats, precision: Precision) -> Floats:
    """Return values as a lower precision holds them, to nearest with ties to even.

    NumPy has no bfloat16: it is the upper half of a float32.
    """
    single = values.astype(np.float32)
    if precision == "float16":
        return single.astype(np.float16).astype(np.float64)
    bits = single.view(np.uint32)
    even = (bits >> 16) & 1
    return ((bits + 0x7FFF + even) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


def threshold_precision(first: Firing, second: Firing, thresholds: Floats) -> Precision | None:
    """Return the precision of thresholds that explains every difference of two tables, or None.

    ``thresholds`` [latents] are the exact ones. Either of the two may have the rounded ones. Of
    each latent that fires on other prompts the mean of what it gained or lost must lie between its
    exact and its rounded threshold, in the direction in which that moved; no other latent may
    differ.
    """
    found: tuple[Precision, ...] = ("bfloat16", "float16")
    for precision in found:
        limits = rounded(thresholds, precision)
        if _explained(first, second, thresholds, limits) or _explained(
            second, first, thresholds, limits
        ):
            return precision
    return None


def _explained(exact: Firing, blurred: Firing, thresholds: Floats, limits: Floats) -> bool:
    counts, sums = blurred.counts - exact.counts, blurred.sums - exact.sums
    turned = counts != 0
    slack = RELATIVE_MAX * np.maximum(np.abs(exact.sums), np.abs(thresholds))
    if not turned.any() or (np.abs(sums[~turned]) > slack[~turned]).any():
        return False
    mean = sums[turned] / counts[turned]
    own = np.nonzero(turned)[1]
    low, high = np.minimum(thresholds, limits)[own], np.maximum(thresholds, limits)[own]
    within = (mean >= low - slack[turned]) & (mean <= high + slack[turned])
    moved_so = np.sign(counts[turned]) == np.sign((thresholds - limits)[own])
    return bool((within & moved_so).all())
