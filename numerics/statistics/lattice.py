"""Exact laws of a sum: what resampling and sign flips would give with endlessly many draws.

Scores are counts of hits, so their differences lie on a lattice, and a law of sums on a lattice is
a product of Fourier transforms. One answer comes out, whatever the seed. Values that lie on no
coarse lattice (nats, probabilities) are rounded to a fine one. A sum of very many values stays
close to its mean: its law is taken around it alone, or else the lattice would have to be coarse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.optimize
import scipy.special
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Complexes = NDArray[np.complex128]

DENOMINATOR_MAX = 100
"""Values that are multiples of one over at most this are taken exactly."""
SUPPORT_MAX = 2**15
"""Longest law in lattice steps; a finer lattice is rounded to one as fine as this."""
LOG_BEYOND = 37.0
"""What a law leaves out on either side has a probability of e to minus this: less than rounding."""
ROUNDING = 1e-9
NEARLY = 1e-6
"""Share of a step within which a point counts as the value itself."""
BLURRED_POINTS_MAX = 1024
"""Points that an error is added to; more would show nothing beside it."""
PROBED = 16
"""Values that are tried first: most lattices are ruled out by a few."""
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
            return (
                _blurred(points, mass, tail, blur_sd),
                -_blurred(-points[::-1], mass[::-1], tail, blur_sd),
            )
        below = np.cumsum(self.mass)
        low = int(np.searchsorted(below, tail - MASS_MIN))
        above = np.cumsum(self.mass[::-1])
        high = len(self.mass) - 1 - int(np.searchsorted(above, tail - MASS_MIN))
        points = self.points
        return float(points[low]), float(points[high])

    def below(self, value: float, blur_sd: float = 0.0) -> float:
        """Return the probability of ``value`` or less, after an error of ``blur_sd`` was added."""
        if blur_sd > 0:
            points, mass = self._gathered()
            return min(1.0, float(mass @ scipy.special.ndtr((value - points) / blur_sd)))
        return min(1.0, float(self.mass[self.points <= value + NEARLY * self.step].sum()))

    def above(self, value: float, blur_sd: float = 0.0) -> float:
        """Return the probability of ``value`` or more, after an error of ``blur_sd`` was added."""
        if blur_sd > 0:
            points, mass = self._gathered()
            return min(1.0, float(mass @ scipy.special.ndtr((points - value) / blur_sd)))
        return min(1.0, float(self.mass[self.points >= value - NEARLY * self.step].sum()))

    def at_least(self, value: float, blur_sd: float = 0.0) -> float:
        """Return the probability of ``value`` or more, equal up to rounding counted in.

        With ``blur_sd`` an independent normal error of that standard deviation is added first.
        """
        if blur_sd > 0:
            return self.above(value, blur_sd)
        return min(1.0, float(self.mass[self.points >= value - self.step / 2].sum()))

    def at_most(self, value: float, blur_sd: float = 0.0) -> float:
        """Return the probability of ``value`` or less, as ``at_least``."""
        if blur_sd > 0:
            return self.below(value, blur_sd)
        return min(1.0, float(self.mass[self.points <= value + self.step / 2].sum()))

    def _gathered(self) -> tuple[Floats, Floats]:
        """Return points and mass without the impossible ones, neighbours put together."""
        kept = np.flatnonzero(self.mass > MASS_MIN)
        together = -(-len(kept) // BLURRED_POINTS_MAX)
        bins = np.arange(len(kept)) // together
        mass = np.bincount(bins, weights=self.mass[kept]).astype(np.float64)
        return np.bincount(bins, weights=(self.mass * self.points)[kept]) / mass, mass


def lattice(values: Floats, reach: float) -> tuple[Integers, float]:
    """Return integers and the step with ``values ≈ integers * step``, for a law of ±``reach``.

    Exact for multiples of 1/k up to k = 100, as long as the law stays short enough; else each
    value is rounded by at most half a step of the finest lattice that does.
    """
    distinct = np.unique(values)
    largest = float(np.abs(distinct).max(initial=0.0))
    finest = SUPPORT_MAX / (2 * max(reach, ROUNDING * largest, 1e-300))
    candidates = np.arange(1, min(DENOMINATOR_MAX, int(finest)) + 1)
    for denominator in candidates[_fits(distinct[:PROBED, None], candidates)].tolist():
        if _fits(distinct[:, None], np.array([denominator])).all():
            return np.rint(values * denominator).astype(np.int64), 1.0 / denominator
    step = 1.0 / finest
    return np.rint(values / step).astype(np.int64), step


def _fits(values: Floats, denominators: Integers) -> NDArray[np.bool_]:
    """Return for which ``denominators`` [k] all ``values`` [n, 1] are multiples of one over it."""
    scaled = values * denominators
    off = np.abs(scaled - np.rint(scaled)).max(axis=0, initial=0.0)
    return np.asarray(off <= ROUNDING * denominators)


def likely_reach(largest: float, square_sum: float) -> float:
    """Return how far a sum of independent errors goes, but for a probability of e^-37 a side.

    Each has mean 0 and is at most ``largest`` (Bernstein's inequality); ``square_sum`` is the
    variance of the sum.
    """
    far = LOG_BEYOND * largest / 3
    return far + math.sqrt(far * far + 2 * LOG_BEYOND * square_sum)


def bootstrap_law(values: Floats, draws: int | None = None) -> Law:
    """Return the law of the mean of ``draws`` values drawn with replacement from ``values``.

    By default as many as there are. Its mean is the mean of ``values`` exactly; the transform is
    that of Efron's bootstrap with all n^n resamples (Efron and Tibshirani 1993, chapter 13).
    """
    n = draws or len(values)
    mean, whole = float(values.mean()), n * float(np.abs(values).max())
    likely = likely_reach(float(np.abs(values - mean).max()), n * float(values.var()))
    counts, step = lattice(values, min(whole, likely))
    least = int(counts.min())
    once = np.bincount(counts - least).astype(np.float64) / len(counts)
    everything = n * (len(once) - 1) + 1
    size = _quick_size(min(everything, 2 * math.ceil(likely / step) + len(once)))
    transform = _power(np.fft.rfft(once, size), n)
    around = np.fft.irfft(transform, size)  # what lies beyond is wrapped around
    middle = round(n * (float(counts.mean()) - least))
    first = max(0, min(middle - size // 2, everything - size))
    rounded = float(counts.mean()) * step
    offset = (least + first / n) * step + (mean - rounded)
    mass = np.concatenate([around[first % size :], around[: first % size]])
    return Law(_probabilities(mass), offset, step / n)


def sign_flip_law(values: Floats) -> Law:
    """Return the law of the mean of ``values`` when each has either sign (Fisher 1935).

    All 2^n patterns, as the product of the cosines that are their transform.
    """
    sizes = np.abs(values)
    whole, likely = float(sizes.sum()), likely_reach(float(sizes.max()), float(values @ values))
    counts, step = lattice(values, min(whole, likely))
    steps, times = np.unique(np.abs(counts), return_counts=True)
    half = min(int(steps @ times), math.ceil(likely / step) + 1)
    size = _quick_size(2 * half + 1)
    frequency = 2 * np.pi * np.arange(size // 2 + 1) / size
    transform = np.ones(len(frequency))
    for value, how_often in zip(steps.tolist(), times.tolist(), strict=True):
        transform = transform * np.cos(frequency * value) ** how_often
    centred = np.fft.irfft(transform, size)  # what lies beyond is wrapped around
    mass = np.concatenate([centred[size - half :], centred[: half + 1]])
    return Law(_probabilities(mass), -half * step / len(values), step / len(values))


def _blurred(points: Floats, mass: Floats, tail: float, blur_sd: float) -> float:
    """Return the point with ``tail`` below it, after an error of ``blur_sd`` was added."""

    def excess(x: float) -> float:
        return float(mass @ scipy.special.ndtr((x - points) / blur_sd)) - tail

    near = float(points[min(len(points) - 1, int(np.searchsorted(np.cumsum(mass), tail)))])
    reach = 40 * blur_sd  # what is further away has no probability that a number could hold
    low, high = points[0] - reach, points[-1] + reach
    for ahead in (blur_sd, 4 * blur_sd):  # mostly the root is close to where it lies unblurred
        if excess(near - ahead) < 0 < excess(near + ahead):
            low, high = near - ahead, near + ahead
            break
    return float(scipy.optimize.brentq(excess, low, high))


def _quick_size(size: int) -> int:
    """Return an even length of at least ``size`` that has small factors only."""
    return 2 * int(scipy.fft.next_fast_len(-(-size // 2), real=True))


def _power(base: Complexes, exponent: int) -> Complexes:
    """Return ``base ** exponent`` by squaring: the power of a complex number goes by logarithms."""
    result = np.ones_like(base)
    while exponent:
        if exponent & 1:
            result = result * base
        base, exponent = base * base, exponent >> 1
    return result


def _probabilities(mass: Floats) -> Floats:
    clipped = np.clip(mass, 0.0, None)
    return np.asarray(clipped / clipped.sum(), dtype=np.float64)
