"""The openings and samples that a verdict needs: the variance split, then simulated.

What varies within an opening shrinks with more samples, what varies between openings only with
more openings. A pilot knows both with an error of its own, so the design must reach its power on
average over what the pilot allows, not at its best guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.special
from numpy.typing import NDArray

from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.statistics.paired import SPREAD_MIN, openings_without_a_case

Floats = NDArray[np.float64]

POWER = 0.8
WORLDS = 2_000
SAMPLES_TRIED = (1, 2, 3, 4, 6, 8, 10)
OPENINGS_MAX = 100_000
"""As many as a spec may list."""
OPENING_COST = 0.5
"""What one more opening costs beside its texts, in texts: it is read once for all its samples."""


@dataclass(frozen=True)
class Variances:
    """Covariance of the two primary differences, per sample within an opening and between them.

    ``within`` is None where one sample an opening cannot separate the two; ``between`` then
    holds all of it.
    """

    between: Floats
    within: Floats | None
    samples: int
    openings: int

    @property
    def share_within(self) -> float | None:
        """Share of one text's variance that lies within openings; None where not known."""
        if self.within is None:
            return None
        total = float(np.trace(self.within + self.between))
        return float(np.trace(self.within)) / total if total > 0 else None


@dataclass(frozen=True)
class Design:
    """Openings and samples an opening that reach the power, and the power simulated there."""

    openings: int
    samples: int
    power: float


def split_variance(differences: Floats) -> Variances:
    """Return the variances of ``differences`` [contrasts, openings, samples].

    An analysis of variance: the covariance between openings is that of their means less what the
    samples explain, and no variance of it is below 0.
    """
    contrasts, openings, samples = differences.shape
    means = differences.mean(axis=2)
    total = np.cov(means).reshape(contrasts, contrasts)
    if samples < 2:
        return Variances(total, None, samples, openings)
    residual = (differences - means[:, :, None]).reshape(contrasts, -1)
    within = residual @ residual.T / (openings * (samples - 1))
    return Variances(_not_negative(total - within / samples), within, samples, openings)


def _not_negative(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.clip(values, 0.0, None)) @ vectors.T, dtype=np.float64)


def cheapest_design(differences: Floats, min_difference: float) -> Design | None:
    """Return the cheapest openings and samples that detect ``min_difference`` with power 0.8.

    Detecting means that all contrasts' t tests reach two-sided 0.05 together where each true
    difference is ``min_difference``. Costs are texts, and half a text for each opening. With one
    sample an opening in ``differences`` [contrasts, openings, samples] only openings are varied.
    None with fewer than two openings, or when more than a spec can hold would be needed.
    """
    if differences.shape[1] < 2:
        return None
    variances = split_variance(differences)
    tried = SAMPLES_TRIED if variances.within is not None else (variances.samples,)
    smallest = (_smallest(variances, samples, min_difference) for samples in tried)
    designs = [design for design in smallest if design.openings <= OPENINGS_MAX]
    cost = {design: design.openings * (design.samples + OPENING_COST) for design in designs}
    return min(designs, key=lambda design: (cost[design], design.samples), default=None)


def _smallest(variances: Variances, samples: int, min_difference: float) -> Design:
    """Return the fewest openings that suffice; the search ends beyond ``OPENINGS_MAX``."""
    covariance = variances.between
    if variances.within is not None:
        covariance = covariance + variances.within / samples
    if not np.diag(covariance).max() > SPREAD_MIN:
        return Design(openings_without_a_case(min_difference), samples, POWER)
    low, high = 1, 4
    while simulated_power(covariance, variances.openings, high, min_difference) < POWER:
        low, high = high, 2 * high
        if high > OPENINGS_MAX:
            break
    while high - low > 1:
        middle = (low + high) // 2
        enough = simulated_power(covariance, variances.openings, middle, min_difference) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    power = simulated_power(covariance, variances.openings, high, min_difference)
    return Design(high, samples, power)


def simulated_power(covariance: Floats, pilot: int, openings: int, difference: float) -> float:
    """Return how often all contrasts are detected with ``openings`` of this covariance.

    The covariance is that of opening means, known from ``pilot`` openings: each simulated world
    scales it by (pilot − 1) / χ² with as many degrees of freedom (the posterior of a variance
    under the reference prior), so that a small pilot asks for more. The same draws serve all
    designs.
    """
    contrasts = len(covariance)
    chi_square, normal, spread = _draws(pilot, contrasts)
    scale = (pilot - 1) / chi_square
    factor = np.linalg.cholesky(covariance + 1e-12 * np.eye(contrasts))
    error = (normal @ factor.T) * np.sqrt(scale / openings)[:, None]
    seen = _mean_square(spread, openings - 1)
    standard_error = np.sqrt(seen * np.diag(covariance) * scale[:, None] / openings)
    limit = scipy.special.stdtrit(openings - 1, 0.975)
    return float((difference + error > limit * standard_error).all(axis=1).mean())


@lru_cache(maxsize=16)
def _draws(pilot: int, contrasts: int) -> tuple[Floats, Floats, Floats]:
    """Return χ² of the pilot's degrees of freedom, and normal draws of errors and of spreads."""
    generator = keyed_generator("power", 0)
    chi_square = generator.chisquare(pilot - 1, WORLDS)
    errors = generator.standard_normal((WORLDS, contrasts))
    return chi_square, errors, generator.standard_normal((WORLDS, contrasts))


def _mean_square(normal: Floats, freedom: int) -> Floats:
    """Return draws of χ²/freedom from normal ones (Wilson and Hilferty 1931)."""
    step = 2 / (9 * freedom)
    return np.asarray(np.clip(1 - step + normal * np.sqrt(step), 0.0, None) ** 3, dtype=np.float64)
