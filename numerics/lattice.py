"""Exact laws of a sum: what resampling and sign flips would give with endlessly many draws.

Scores are counts of hits, so their differences lie on a lattice, and a law of sums on a lattice is
a product of Fourier transforms. One answer comes out, whatever the seed. Values that lie on no
coarse lattice (nats, probabilities) are rounded to a fine one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

DENOMINATOR_MAX = 100
"""Values that are multiples of one over at most this are taken exactly."""
SUPPORT_MAX = 2**14
"""Longest support of a law in lattice steps; a finer lattice is rounded to one as fine as this."""
ROUNDING = 1e-9
BLURRED_POINTS_MAX = 1024
"""Points that an error is added to; more would show nothing beside it."""
MASS_MIN = 1e-15
"""A point that is less likely than this is left out: the transforms are not more exact."""


@dataclass(frozen=True)
class Law:
    """A discrete law: ``mass`` [points] at ``offset + step * (0, 1, 2, …)``."""

    mass: Floats
    offset: float
    step: float

    @property
    def points(self) -> Floats:
        """Return where the mass lies, rising."""
        return np.asarray(self.offset + self.step * np.arange(len(self.mass)), dtype=np.float64)

    def interval(self, tail: float, blur_sd: float = 0.0) -> tuple[float, float]:
        """Return the bounds outside of which less than ``tail`` lies on either side.

        With ``blur_sd`` an independent normal error of that standard deviation is added first.
        """
        if blur_sd > 0:
            points, mass = self._gathered()
            return _blurred(points, mass, tail, blur_sd), -_blurred(-points, mass, tail, blur_sd)
        below = np.cumsum(self.mass)
        low = int(np.searchsorted(below, tail - MASS_MIN))
        above = np.cumsum(self.mass[::-1])
        high = len(self.mass) - 1 - int(np.searchsorted(above, tail - MASS_MIN))
        points = self.points
        return float(points[low]), float(points[high])

    def at_least(self, value: float) -> float:
        """Return the probability of ``value`` or more, equal up to rounding counted in."""
        return min(1.0, float(self.mass[self.points >= value - self.step / 2].sum()))

    def at_most(self, value: float) -> float:
        """Return the probability of ``value`` or less, equal up to rounding counted in."""
        return min(1.0, float(self.mass[self.points <= value + self.step / 2].sum()))

    def _gathered(self) -> tuple[Floats, Floats]:
        """Return points and mass without the impossible ones, neighbours put together."""
        kept = np.flatnonzero(self.mass > MASS_MIN)
        together = -(-len(kept) // BLURRED_POINTS_MAX)
        bins = np.arange(len(kept)) // together
        mass = np.bincount(bins, weights=self.mass[kept]).astype(np.float64)
        return np.bincount(bins, weights=(self.mass * self.points)[kept]) / mass, mass


def lattice(values: Floats, terms: int) -> tuple[Integers, float]:
    """Return integers and the step with ``values ≈ integers * step``, for sums of ``terms`` values.

    Exact for multiples of 1/k up to k = 100, as long as a law of such a sum stays short enough;
    else each value is rounded by at most half a step of the finest lattice that does.
    """
    reach = max(float(np.abs(values).max(initial=0.0)), 1e-300)
    finest = SUPPORT_MAX / (2 * max(terms, 1) * reach)
    distinct = np.unique(values)
    for denominator in range(1, min(DENOMINATOR_MAX, int(finest)) + 1):
        scaled = distinct * denominator
        if np.abs(scaled - np.rint(scaled)).max(initial=0.0) <= ROUNDING * denominator:
            return np.rint(values * denominator).astype(np.int64), 1.0 / denominator
    step = 1.0 / finest
    return np.rint(values / step).astype(np.int64), step


def bootstrap_law(values: Floats, draws: int | None = None) -> Law:
    """Return the law of the mean of ``draws`` values drawn with replacement from ``values``.

    By default as many as there are. Its mean is the mean of ``values`` exactly; the transform is
    that of Efron's bootstrap with all n^n resamples (Efron and Tibshirani 1993, chapter 13).
    """
    n = draws or len(values)
    counts, step = lattice(values, n)
    least = int(counts.min())
    once = np.bincount(counts - least).astype(np.float64) / len(counts)
    size = n * (len(once) - 1) + 1
    mass = np.fft.irfft(np.fft.rfft(once, _even(size)) ** n, _even(size))[:size]
    mean = float(values.mean())
    rounded = float(counts.mean()) * step
    return Law(_probabilities(mass), least * step + (mean - rounded), step / n)


def sign_flip_law(values: Floats) -> Law:
    """Return the law of the mean of ``values`` when each has either sign (Fisher 1935).

    All 2^n patterns, as the product of the cosines that are their transform.
    """
    counts, step = lattice(values, len(values))
    sizes, times = np.unique(np.abs(counts), return_counts=True)
    total = int(sizes @ times)
    size = _even(2 * total + 1)
    frequency = 2 * np.pi * np.arange(size // 2 + 1) / size
    transform = np.ones(len(frequency))
    for value, how_often in zip(sizes.tolist(), times.tolist(), strict=True):
        transform = transform * np.cos(frequency * value) ** how_often
    centred = np.fft.irfft(transform, size)
    mass = np.concatenate([centred[size - total :], centred[: total + 1]])
    return Law(_probabilities(mass), -total * step / len(values), step / len(values))


def _blurred(points: Floats, mass: Floats, tail: float, blur_sd: float) -> float:
    """Return the point with ``tail`` below it, after an error of ``blur_sd`` was added."""

    def excess(x: float) -> float:
        return float(mass @ scipy.special.ndtr((x - points) / blur_sd)) - tail

    reach = 40 * blur_sd  # what is further away has no probability that a number could hold
    return float(scipy.optimize.brentq(excess, points.min() - reach, points.max() + reach))


def _even(size: int) -> int:
    return size + size % 2


def _probabilities(mass: Floats) -> Floats:
    clipped = np.clip(mass, 0.0, None)
    return np.asarray(clipped / clipped.sum(), dtype=np.float64)
