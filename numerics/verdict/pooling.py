"""Pooling over cells: a normal-normal model of differences that vary between cells.

Cell i shows y_i ~ N(theta_i, s_i²) of its true difference theta_i ~ N(mu, tau²); s_i is taken as
known. Nothing is sampled:

- tau is that of Paule and Mandel 1982: with weights w_i = 1/(s_i² + tau²) it solves
  Σ w_i (y_i - mu)² = k - 1, and is 0 where the left side is smaller already.
- mu is the plain mean of the cells, its interval that of Student's t with k - 1. Weights by s_i
  would favour cells that show extreme rates: an error that is estimated from few texts goes with
  what it is an error of (Doncaster and Spake 2018), and a false word is then said too often.
  Cells that agree by luck are not taken at their word: the variance between the y_i is at least
  what their errors alone would exceed in nine of ten families of cells.
- What depends on tau itself (its interval, I², the difference of a new cell, each cell's own
  difference drawn towards the mean) is averaged over tau's marginal posterior on a grid, under
  flat priors on mu and tau (Gelman 2006). With tau put in as if it were known the interval of a
  new cell would be too narrow where tau is small.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CELLS_MIN = 2
"""A mean over fewer is meaningless."""
POSTERIOR_CELLS_MIN = 3
"""Under flat priors tau has no posterior with fewer."""
Z_TWO_SIDED_95 = 1.959963984540054
_GRID = 400
_ERROR_MIN = 1e-6
_TAIL = 0.025
_BISECTIONS = 40
_AGREEMENT = 0.1


@dataclass(frozen=True)
class Interval:
    """A mean difference with its 95 % interval."""

    estimate: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """The standard error that the interval stands for."""
        return (self.high - self.low) / (2 * Z_TWO_SIDED_95)

    @staticmethod
    def around(estimate: float, error: float) -> Interval:
        """Return the interval of an estimate with a standard error."""
        half = Z_TWO_SIDED_95 * error
        return Interval(estimate, estimate - half, estimate + half)


@dataclass(frozen=True)
class Mean:
    """A mean over cells with its standard error, t with ``freedom``, and ``tau`` between cells."""

    estimate: float
    error: float
    freedom: int
    tau: float

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the bounds of the mean."""
        half = float(scipy.special.stdtrit(self.freedom, (1 + confidence) / 2)) * self.error
        return self.estimate - half, self.estimate + half

    def p_above(self, value: float) -> float:
        """Return the one-sided p that the mean is above ``value``."""
        if self.error == 0:
            return float(self.estimate <= value)
        return float(scipy.special.stdtr(self.freedom, (value - self.estimate) / self.error))

    def p_below(self, value: float) -> float:
        """Return the one-sided p that the mean is below ``value``."""
        return Mean(-self.estimate, self.error, self.freedom, self.tau).p_above(-value)


@dataclass(frozen=True)
class Spread:
    """How cells differ. ``tau`` has its posterior's median and 95 % interval.

    ``i_square`` is the share of the variance of what cells show that is not their own error
    (Higgins and Thompson 2002), averaged over tau; ``new`` the 95 % prediction interval of a new
    cell's true difference around its mean, ``above`` the probability that this is above 0, and
    ``cells`` each cell's true difference, drawn towards the mean.
    """

    tau: Interval
    i_square: float
    new: Interval
    above: float
    cells: tuple[Interval, ...]


def mean_over_cells(found: Sequence[Interval], texts: Sequence[Hashable]) -> Mean:
    """Return the plain mean over cells; ``texts`` are equal for cells whose errors may be one.

    Its variance is that of the mean of k numbers with the variance between the cells, at least
    that of errors alone, and where texts are shared at least tau²/k + Σ (Σ s/k)², the inner sum
    over the cells of equal texts. Raises ValueError with fewer than two cells.
    """
    if len(found) < CELLS_MIN:
        raise ValueError(f"a mean over cells needs {CELLS_MIN} of them")
    estimate, error = _columns(found)
    cells, freedom = len(found), len(found) - 1
    tau_square = between(estimate, error**2)
    least = float(np.mean(error**2)) * _least_share(freedom)
    variance = max(float(np.var(estimate, ddof=1)), least) / cells
    if len(set(texts)) < len(found):
        alike = np.unique([list(texts).index(each) for each in texts], return_inverse=True)[1]
        together = np.bincount(alike, weights=error / cells)
        variance = max(variance, tau_square / cells + float(together @ together))
    return Mean(float(estimate.mean()), math.sqrt(variance), freedom, math.sqrt(tau_square))


def _least_share(freedom: int) -> float:
    """Return the share of their errors' variance that one in ten families shows or less."""
    return float(scipy.special.chdtri(freedom, 1 - _AGREEMENT)) / freedom


def between(estimate: Floats, variance: Floats) -> float:
    """Return the variance between cells (Paule and Mandel 1982), at least 0."""

    def excess(tau_square: float) -> float:
        weight = 1 / (variance + tau_square)
        mean = weight @ estimate / weight.sum()
        return float(weight @ (estimate - mean) ** 2) - (len(estimate) - 1)

    if excess(0.0) <= 0:
        return 0.0
    high = float(np.var(estimate, ddof=1)) + float(variance.max())
    while excess(high) > 0:
        high *= 2
    return float(scipy.optimize.brentq(excess, 0.0, high, xtol=1e-14, rtol=1e-12))


def spread(found: Sequence[Interval]) -> Spread | None:
    """Return how cells differ; None with fewer than three."""
    if len(found) < POSTERIOR_CELLS_MIN:
        return None
    estimate, error = _columns(found)
    tau = _grid(estimate, error)
    weight = 1 / (error**2 + tau[:, None] ** 2)  # [grid, cells]
    whole = weight.sum(axis=1)
    mean = weight @ estimate / whole
    share = _posterior(estimate, weight, mean)
    typical = typical_variance(error)
    sd_new = np.sqrt(1 / whole + tau**2)
    kept = tau**2 / (tau**2 + error[:, None] ** 2)  # [cells, grid]
    centre = kept * estimate[:, None] + (1 - kept) * mean
    own_sd = np.sqrt(kept * error[:, None] ** 2 + (1 - kept) ** 2 / whole)
    (new,) = _mixtures(share, mean[None], sd_new[None])
    return Spread(
        tau=_of_grid(tau, share),
        i_square=float(share @ (tau**2 / (tau**2 + typical))),
        new=new,
        above=float(share @ scipy.special.ndtr(mean / sd_new)),
        cells=tuple(_mixtures(share, centre, own_sd)),
    )


def typical_variance(error: Floats) -> float:
    """Return the variance of a typical cell's error (Higgins and Thompson 2002, eq. 9)."""
    weight = 1 / error**2
    freedom = len(error) - 1
    return float(freedom * weight.sum() / (weight.sum() ** 2 - weight @ weight))


def _columns(found: Sequence[Interval]) -> tuple[Floats, Floats]:
    estimate = np.array([each.estimate for each in found], dtype=np.float64)
    error = np.array([each.error for each in found], dtype=np.float64)
    return estimate, np.maximum(error, _ERROR_MIN)


def _grid(estimate: Floats, error: Floats) -> Floats:
    """Return values of tau that hold its posterior, equally far from one another."""
    high = 6 * (float(np.std(estimate, ddof=1)) + float(error.min()))
    return np.linspace(0.0, high, _GRID)


def _posterior(estimate: Floats, weight: Floats, mean: Floats) -> Floats:
    """Return tau's posterior [grid], mu integrated out (Gelman et al. 2013, eq. 5.21)."""
    log = 0.5 * (
        np.log(weight).sum(axis=1)
        - np.log(weight.sum(axis=1))
        - (weight * (estimate - mean[:, None]) ** 2).sum(axis=1)
    )
    density = np.exp(log - log.max())
    return np.asarray(density / density.sum(), dtype=np.float64)


def _of_grid(value: Floats, share: Floats) -> Interval:
    below = np.cumsum(share)
    low, middle, high = (float(np.interp(q, below, value)) for q in (_TAIL, 0.5, 1 - _TAIL))
    return Interval(middle, low, high)


def _mixtures(share: Floats, mean: Floats, sd: Floats) -> list[Interval]:
    """Return mean and 95 % interval of mixtures of normal laws; mean and sd are [laws, grid]."""
    sd = np.maximum(sd, _ERROR_MIN)
    low, high = (mean - 9 * sd).min(axis=1), (mean + 9 * sd).max(axis=1)
    bounds = [_quantile(share, mean, sd, low, high, tail) for tail in (_TAIL, 1 - _TAIL)]
    centre = mean @ share
    return [Interval(*map(float, each)) for each in zip(centre, *bounds, strict=True)]


def _quantile(
    share: Floats, mean: Floats, sd: Floats, low: Floats, high: Floats, tail: float
) -> Floats:
    """Return where each mixture has ``tail`` below it, between ``low`` and ``high``."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        below = scipy.special.ndtr((middle[:, None] - mean) / sd) @ share < tail
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
