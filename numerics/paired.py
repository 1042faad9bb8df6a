"""Paired comparisons over prompts: intervals and sign-flip tests.

The unit is the prompt: samples of one prompt are averaged first, so whole prompts are resampled
and flipped (a cluster bootstrap). Every draw comes from a seed that the caller gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 10_000
RESAMPLES_PER_BLOCK = 1_000
EXACT_FLIPS_PROMPTS_MAX = 12
"""Up to here all 2^n sign patterns are tried; above, ``RESAMPLES`` random ones."""
SPREAD_MIN = 1e-12
Z_TWO_SIDED_95 = 1.96
Z_POWER_80 = 0.8416


@dataclass(frozen=True)
class Contrast:
    """A mean paired difference over prompts.

    ``low`` and ``high`` bound it with 95 %, ``low_90`` and ``high_90`` with 90 % confidence (one
    end of it is a one-sided test at 0.05). ``sd`` is the standard deviation of the
    differences (NaN for one prompt). ``p_greater`` and ``p_less`` are one-sided sign-flip p.
    """

    contrast: str
    estimate: float
    low: float
    high: float
    low_90: float
    high_90: float
    n: int
    sd: float
    p_greater: float
    p_less: float

    @property
    def p_two_sided(self) -> float:
        """Twice the smaller one-sided p, at most 1."""
        return min(1.0, 2 * min(self.p_greater, self.p_less))


def bootstrap_interval(values: Floats, seed: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the expanded percentile bootstrap interval of the mean over the first axis.

    10,000 resamples of whole prompts. The plain percentile interval is too narrow for few
    prompts; its tail α/2 becomes Φ(√(n/(n−1)) · t(α/2, n−1)) (Hesterberg 2015, "What teachers
    should know about the bootstrap", section 5.3). NaN for fewer than one value; for one value the
    interval is that value.
    """
    n = len(values)
    if n == 0:
        return float("nan"), float("nan")
    generator = np.random.Generator(np.random.Philox(key=seed))
    means = []
    for _ in range(0, RESAMPLES, RESAMPLES_PER_BLOCK):
        drawn = generator.integers(0, n, size=(RESAMPLES_PER_BLOCK, n))
        means.append(values[drawn].mean(axis=1))
    tail = expanded_tail((1 - confidence) / 2, n)
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def expanded_tail(tail: float, n: int) -> float:
    """Return the bootstrap quantile that covers like the t interval of ``n`` values does."""
    if n < 2:
        return tail
    return float(scipy.stats.norm.cdf(math.sqrt(n / (n - 1)) * scipy.stats.t.ppf(tail, n - 1)))


def sign_flip(differences: Floats, seed: int) -> tuple[float, float]:
    """Return the one-sided p that the mean is above, and below, zero.

    Under the null each prompt's difference is as likely with the other sign (Fisher 1935). All
    2^n patterns for few prompts, else p = (1 + k) / (1 + 10,000) (Phipson and Smyth 2010).
    """
    n = len(differences)
    if n <= EXACT_FLIPS_PROMPTS_MAX:
        patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        means = _flipped_means(differences, patterns)
        seen, tried = 0, len(means)
    else:
        generator = np.random.Generator(np.random.Philox(key=seed))
        means = np.concatenate(
            [
                _flipped_means(differences, generator.integers(0, 2, (RESAMPLES_PER_BLOCK, n)))
                for _ in range(0, RESAMPLES, RESAMPLES_PER_BLOCK)
            ]
        )
        seen, tried = 1, len(means) + 1
    slack = SPREAD_MIN * max(1.0, float(np.abs(differences).max(initial=0.0)))
    observed = float(differences.mean())
    greater = int((means >= observed - slack).sum())
    less = int((means <= observed + slack).sum())
    return (seen + greater) / tried, (seen + less) / tried


def _flipped_means(differences: Floats, bits: NDArray[np.integer]) -> Floats:
    return np.asarray((1 - 2 * bits) @ differences / len(differences), dtype=np.float64)


def paired_contrast(name: str, first: Floats, second: Floats, seed: int) -> Contrast:
    """Return the contrast first − second over prompts (same order, no NaN).

    Where every prompt shows the same difference the bootstrap has no width and says nothing; then
    the interval is that of a proportion never seen, ± 3 / n (Hanley and Lippman-Hand 1983), within
    [−1, 1]. Raises ``ValueError`` without a prompt.
    """
    difference = first - second
    n = len(difference)
    if n == 0:
        raise ValueError("a contrast needs at least one prompt")
    estimate = float(difference.mean())
    if n > 1 and np.ptp(difference) > SPREAD_MIN:
        low, high = bootstrap_interval(difference, seed)
        low_90, high_90 = bootstrap_interval(difference, seed, confidence=0.90)
    else:
        low, high = max(-1.0, estimate - 3.0 / n), min(1.0, estimate + 3.0 / n)
        low_90, high_90 = low, high
    sd = float(difference.std(ddof=1)) if n > 1 else float("nan")
    p_greater, p_less = sign_flip(difference, seed)
    return Contrast(name, estimate, low, high, low_90, high_90, n, sd, p_greater, p_less)


def prompts_needed(contrast: Contrast, min_difference: float) -> int:
    """Return the prompts that detect ``min_difference`` with power 0.8 at two-sided 0.05.

    n = ((1.96 + 0.8416) · sd / δ)² for paired differences; 3 / δ where no spread was seen.
    """
    if not contrast.sd > SPREAD_MIN:
        return math.ceil(3.0 / min_difference)
    return math.ceil(((Z_TWO_SIDED_95 + Z_POWER_80) * contrast.sd / min_difference) ** 2)


def detectable_difference(contrast: Contrast) -> float:
    """Return the difference that these prompts detect with power 0.8 at two-sided 0.05."""
    if not contrast.sd > SPREAD_MIN:
        return 3.0 / contrast.n
    return (Z_TWO_SIDED_95 + Z_POWER_80) * contrast.sd / math.sqrt(contrast.n)
