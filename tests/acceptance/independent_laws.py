"""Intervals and tests once more: convolved value by value, bounds by bisection, no code shared.

NumPy and SciPy only; see ``independent_verdict.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.signal
import scipy.stats


def added(pieces: list[np.ndarray]) -> np.ndarray:
    """Return the law of a sum, each piece a law that is symmetric in place: pairs first."""
    while len(pieces) > 1:
        paired = [
            scipy.signal.convolve(a, b, method="direct" if len(a) + len(b) < 1000 else "fft")
            for a, b in zip(pieces[::2], pieces[1::2], strict=False)
        ]
        pieces = paired + ([pieces[-1]] if len(pieces) % 2 else [])
    return np.clip(pieces[0], 0, None)


def resampled(values: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return points and mass of the mean of as many draws with replacement."""
    counts = np.rint(values / step).astype(int)
    reach = int(np.abs(counts).max())
    once = np.bincount(counts + reach, minlength=2 * reach + 1) / len(counts)
    mass = added([once] * len(counts))
    places = np.arange(len(mass)) - (len(mass) - 1) // 2
    exact = values.mean() - counts.mean() * step  # what rounding moved
    return places * step / len(counts) + exact, mass / mass.sum()


def flipped(values: np.ndarray, step: float, blur: float = 0.0) -> tuple[float, float]:
    """Return the one-sided p of all sign patterns: the sum as large, as small as seen.

    ``blur`` is the standard deviation of an error of the sum. Sums that are equal stay equal when
    their values were rounded to the steps: within four standard deviations of that error they tie.
    """
    counts = np.rint(values / step).astype(int)
    tied = int(8 * np.sqrt(np.square(values / step - counts).sum()))
    pieces = []
    for size in np.abs(counts[counts != 0]):
        piece = np.zeros(2 * size + 1)
        piece[[0, -1]] = 0.5
        pieces.append(piece)
    mass = added(pieces) if pieces else np.ones(1)
    places = np.arange(len(mass)) - (len(mass) - 1) // 2
    seen = counts.sum()
    if blur:
        distance = (places - seen) * step / blur
        least = 0.5 ** len(values)
        sums = [float(mass @ scipy.stats.norm.cdf(sign * distance)) for sign in (1, -1)]
        return max(least, sums[0]), max(least, sums[1])
    return float(mass[places >= seen - tied].sum()), float(mass[places <= seen + tied].sum())


class Bounds:
    """The interval of a mean: where it ends at a level, and at which level it ends somewhere."""

    def __init__(self, values, group, unit, blur, step, span):
        self.values, self.span, self.blur = values, span, blur
        self.estimate = float(values.mean())
        sizes = np.bincount(group)
        sums = np.bincount(group, weights=values) - sizes * self.estimate
        self.groups = len(sizes)
        n = len(values)
        self.flat = self.groups < 2 or np.ptp(sums) < 1e-9
        self.few = self.groups < 8
        self.t_error = 0.0
        if self.groups > 1:
            spread = float((sums**2).sum()) / n**2 * self.groups / (self.groups - 1)
            self.t_error = float(np.sqrt(spread + blur**2))
        if self.flat or self.few:
            return
        drawn = values if self.groups == n else sums
        if unit:
            drawn = np.r_[drawn, unit, -unit]
        points, mass = resampled(drawn, step)
        share = len(drawn) / n
        self.points = self.estimate + share * (points - drawn.mean())
        self.mass, self.width = mass, share * step / len(drawn)

    def _cumulative(self, x: float) -> float:
        """P(mean ≤ x), an error of ``blur`` added."""
        if self.blur:
            return float(self.mass @ scipy.stats.norm.cdf((x - self.points) / self.blur))
        return float(self.mass[self.points <= x + 1e-6 * self.width].sum())

    def _level(self, tail: float) -> float:
        g = self.groups
        return float(scipy.stats.norm.cdf(np.sqrt(g / (g - 1)) * scipy.stats.t.ppf(tail, g - 1)))

    def interval(self, confidence: float) -> tuple[float, float]:
        tail = (1 - confidence) / 2
        if self.flat:
            half = np.nan
            if self.span:  # the bound of Clopper and Pearson for no case among the groups
                half = self.span * float(scipy.stats.beta.ppf(1 - tail, 1, self.groups))
            low, high = self.estimate - half, self.estimate + half
        elif self.few:
            half = self.t_error * float(scipy.stats.t.ppf(1 - tail, self.groups - 1))
            low, high = self.estimate - half, self.estimate + half
        else:
            low, high = self._ends(self._level(tail))
        return (max(low, -self.span), min(high, self.span)) if self.span else (low, high)

    def _ends(self, level: float) -> tuple[float, float]:
        if not self.blur:
            low = self.points[np.searchsorted(np.cumsum(self.mass), level - 1e-13)]
            above = np.cumsum(self.mass[::-1])
            return float(low), float(self.points[::-1][np.searchsorted(above, level - 1e-13)])
        edges = self.points[0] - 50 * self.blur, self.points[-1] + 50 * self.blur
        return (
            float(scipy.optimize.bisect(lambda x: self._cumulative(x) - level, *edges)),
            float(scipy.optimize.bisect(lambda x: 1 - self._cumulative(x) - level, *edges)),
        )

    def p_above(self, value: float) -> float:
        """The level at which the interval lies above ``value``."""
        if self.flat:
            return self._unseen(self.estimate - value)
        if self.few:
            distance = (value - self.estimate) / self.t_error
            return float(scipy.stats.t.cdf(distance, self.groups - 1))
        return self._plain(self._cumulative(value))

    def p_below(self, value: float) -> float:
        """The level at which the interval lies below ``value``."""
        if self.flat:
            return self._unseen(value - self.estimate)
        if self.few:
            distance = (self.estimate - value) / self.t_error
            return float(scipy.stats.t.cdf(distance, self.groups - 1))
        before = value if self.blur else value - 3e-6 * self.width
        return self._plain(1 - self._cumulative(before))

    def _plain(self, level: float) -> float:
        g = self.groups
        quantile = scipy.stats.norm.ppf(min(1.0, max(0.0, level))) * np.sqrt((g - 1) / g)
        return float(scipy.stats.t.cdf(quantile, g - 1))

    def _unseen(self, distance: float) -> float:
        if not self.span or distance <= 0:
            return 1.0
        return float(scipy.stats.beta.sf(min(1.0, distance / self.span), 1, self.groups))


@dataclass
class Contrast:
    """One contrast, computed again."""

    estimate: float
    ends: tuple[float, float, float, float]
    flips: tuple[float, float]
    zero: tuple[float, float]
    margin: tuple[float, float]

    @property
    def gain(self) -> float:
        return max(self.flips[0], self.zero[0])

    @property
    def loss(self) -> float:
        return max(self.flips[1], self.zero[1])


def contrast(first, second, group, *, unit=0.0, blur=0.0, step, span=1.0, margin=0.15) -> Contrast:
    """Return a contrast over the openings where both are known."""
    known = ~(np.isnan(first) | np.isnan(second))
    values = (first - second)[known]
    belongs = np.unique(group[known], return_inverse=True)[1]
    alone = len(np.unique(belongs)) == len(values)
    fine = step if alone else step / len(values)  # a group's sum less its share of the mean
    bounds = Bounds(values, belongs, unit, blur, fine, span)
    return Contrast(
        bounds.estimate,
        (*bounds.interval(0.95), *bounds.interval(0.90)),
        flipped(np.bincount(belongs, weights=values), step / 10, blur * len(values)),
        (bounds.p_above(0.0), bounds.p_below(0.0)),
        (bounds.p_above(-margin), bounds.p_below(margin)),
    )


def holm(p: np.ndarray) -> np.ndarray:
    """Return p adjusted by Holm's procedure."""
    adjusted, running = np.zeros(len(p)), 0.0
    for rank, place in enumerate(np.argsort(p, kind="stable")):
        running = max(running, min(1.0, p[place] * (len(p) - rank)))
        adjusted[place] = running
    return adjusted


def rate_bounds(scores: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """Return Wilson's interval of a rate; with samples or groups of the effective trials, by t."""
    means, p = scores.mean(axis=1), float(scores.mean())
    g = len(np.unique(group))
    parts = np.bincount(group, weights=means - p) / len(means)
    z, trials = scipy.stats.norm.ppf(0.975), float(g)
    if 1 < g < scores.size:
        z = scipy.stats.t.ppf(0.975, g - 1)
        variance = (parts**2).sum() * g / (g - 1)
        trials = min(scores.size, p * (1 - p) / variance) if variance > 1e-24 else trials
    roots = np.roots([1 + z**2 / trials, -(2 * p + z**2 / trials), p**2])
    low, high = sorted(np.real(roots))
    return max(0.0, float(low)), min(1.0, float(high))
