"""Paired comparisons over openings: intervals and sign-flip tests, exact and without a seed.

The unit is the opening, or the group of openings that belong together (a template, a source):
samples of one opening are averaged first, and whole groups are resampled and flipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.special
from numpy.typing import NDArray

from loopscope.numerics.statistics.lattice import sign_flip_law
from loopscope.numerics.statistics.resampling import Grouped, Resampled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SPREAD_MIN = 1e-12
SCORE_SPAN = 1.0
"""Largest difference that two concept scores can have."""
Z_TWO_SIDED_95 = 1.96
Z_POWER_80 = 0.8416


@dataclass(frozen=True)
class Contrast:
    """A mean paired difference over openings.

    ``low`` and ``high`` bound it with 95 %, ``low_90`` and ``high_90`` with 90 % confidence (one
    end of it is a one-sided test at 0.05); NaN where nothing bounds it. ``sd`` is the standard
    deviation of the differences (NaN for one opening), ``shared_sd`` that of what the error of the
    arms' budgets adds to the mean. ``p_greater`` and ``p_less`` are one-sided sign-flip p. The
    others are one-sided p of the interval: the smallest level at which it lies above 0, below 0,
    above minus the margin, below the margin (1 where nothing bounds it, or without a margin).
    """

    contrast: str
    estimate: float
    low: float
    high: float
    low_90: float
    high_90: float
    n: int
    groups: int
    sd: float
    shared_sd: float
    p_greater: float
    p_less: float
    p_above_zero: float
    p_below_zero: float
    p_above_margin: float = 1.0
    p_below_margin: float = 1.0

    @property
    def p_gain(self) -> float:
        """One-sided p that the mean is above 0: interval and sign-flip test must agree."""
        return max(self.p_greater, self.p_above_zero)

    @property
    def p_loss(self) -> float:
        """One-sided p that the mean is below 0: interval and sign-flip test must agree."""
        return max(self.p_less, self.p_below_zero)

    @property
    def p_two_sided(self) -> float:
        """Twice the smaller one-sided p, at most 1."""
        return min(1.0, 2 * min(self.p_greater, self.p_less))


def unseen_bound(n: int, confidence: float = 0.95) -> float:
    """Return the largest share that ``n`` trials without a case allow: 1 − (α/2)^(1/n).

    The exact two-sided bound of Clopper and Pearson 1934, about 3.69 / n at 95 % (3 / n, the "rule
    of three", is the one-sided one).
    """
    return float(1 - ((1 - confidence) / 2) ** (1 / n))


def unseen_tail(n: int, share: float) -> float:
    """Return the one-sided level at which ``unseen_bound`` is ``share``: (1 − share)^n."""
    return float(min(1.0, max(0.0, 1 - share)) ** n) if share > 0 else 1.0


def openings_without_a_case(share: float, confidence: float = 0.95) -> int:
    """Return how many trials without a case allow no larger ``share``; at least two."""
    if share >= 1:
        return 2
    return max(2, math.ceil(math.log((1 - confidence) / 2) / math.log1p(-share)))


def sign_flip(
    differences: Floats, group: Integers | None = None, blur_sd: float = 0.0
) -> tuple[float, float]:
    """Return the one-sided p that the mean is above, and below, zero.

    Under the null each group's sum is as likely with the other sign (Fisher 1935); all patterns
    count, so p is exact up to the rounding of the transform, and never below that of one pattern.
    ``blur_sd`` is the standard deviation of an independent normal error of the mean.
    """
    parts = Grouped.of(differences, group).parts * len(differences)
    law = sign_flip_law(parts)
    observed = float(parts.mean())
    least = 0.5 ** len(parts)
    blur_sd *= len(differences) / len(parts)  # the law is that of the mean of the groups' sums
    return (
        max(least, law.at_least(observed, blur_sd)),
        max(least, law.at_most(observed, blur_sd)),
    )


@dataclass(frozen=True)
class Compared:
    """A contrast without a margin, and the levels at which its interval clears a value.

    ``above`` and ``below`` return the smallest one-sided level at which it lies above, or below.
    """

    contrast: Contrast
    above: Callable[[float], float]
    below: Callable[[float], float]

    def at(self, margin: float) -> Contrast:
        """Return the contrast with its p against ``margin``, the smallest practical difference."""
        return replace(
            self.contrast, p_above_margin=self.above(-margin), p_below_margin=self.below(margin)
        )


def paired_contrast(
    name: str,
    first: Floats,
    second: Floats,
    *,
    group: Integers | None = None,
    shared_sd: float = 0.0,
    unit: float = 0.0,
    span: float | None = SCORE_SPAN,
    margin: float | None = None,
) -> Contrast:
    """Return the contrast of ``compared``, with its p against ``margin`` where there is one."""
    found = compared(name, first, second, group=group, shared_sd=shared_sd, unit=unit, span=span)
    return found.contrast if margin is None else found.at(margin)


def compared(
    name: str,
    first: Floats,
    second: Floats,
    *,
    group: Integers | None = None,
    shared_sd: float = 0.0,
    unit: float = 0.0,
    span: float | None = SCORE_SPAN,
) -> Compared:
    """Return the contrast first − second over openings (same order, no NaN), for any margin.

    ``unit`` is what one text's hit weighs in an opening's score (0: the outcome counts no hits),
    ``span`` the largest difference that the outcome can have, None where nothing bounds it.
    Where every group shows the same difference the bootstrap has no width and is useless; then
    the interval is that of a difference never seen, ± span · ``unseen_bound``. Raises
    ``ValueError`` without an opening.
    """
    difference = first - second
    n = len(difference)
    if n == 0:
        raise ValueError("a contrast needs at least one opening")
    groups = n if group is None else len(np.unique(group))
    means = Grouped.of(difference, group)
    estimate = float(difference.mean())
    has_spread = groups > 1 and np.ptp(means.centred) * n > SPREAD_MIN
    resampled = (
        Resampled.of(difference, group=group, unit=unit, blur_sd=shared_sd) if has_spread else None
    )

    def interval(confidence: float) -> tuple[float, float]:
        if resampled is not None:
            low, high = resampled.interval(confidence)
        else:
            half = math.nan if span is None else span * unseen_bound(groups, confidence)
            low, high = estimate - half, estimate + half
        return (low, high) if span is None else (max(low, -span), min(high, span))

    def above(value: float) -> float:
        if resampled is not None:
            return resampled.p_above(value)
        return 1.0 if span is None else unseen_tail(groups, (estimate - value) / span)

    def below(value: float) -> float:
        if resampled is not None:
            return resampled.p_below(value)
        return 1.0 if span is None else unseen_tail(groups, (value - estimate) / span)

    low, high = interval(0.95)
    low_90, high_90 = interval(0.90)
    p_greater, p_less = sign_flip(difference, group, shared_sd)
    contrast = Contrast(
        contrast=name,
        estimate=estimate,
        low=low,
        high=high,
        low_90=low_90,
        high_90=high_90,
        n=n,
        groups=groups,
        sd=float(difference.std(ddof=1)) if n > 1 else math.nan,
        shared_sd=shared_sd,
        p_greater=p_greater,
        p_less=p_less,
        p_above_zero=above(0.0),
        p_below_zero=below(0.0),
    )
    return Compared(contrast, above, below)


def without_gaps(contrast: Contrast) -> Contrast:
    """Return the contrast with an interval of no width where nothing bounds it: all values agree.

    Its p stay at 1, so that nothing is said to be above or below 0.
    """
    if not math.isnan(contrast.low):
        return contrast
    mean = contrast.estimate
    return replace(contrast, low=mean, high=mean, low_90=mean, high_90=mean)


def rate_interval(
    scores: Floats, *, group: Integers | None = None, confidence: float = 0.95
) -> tuple[float, float]:
    """Return Wilson's interval of a rate from ``scores`` [openings, samples], each in [0, 1].

    With one sample an opening and no groups it is that of Wilson 1927. Else the number of trials
    is the effective one, p(1 − p) over the variance of the mean between groups, and the quantile
    is that of t (Korn and Graubard 1998, with Wilson's form); groups that all agree count one
    trial each. NaN without a score.
    """
    by_opening = scores.mean(axis=1)
    n = len(by_opening)
    if n == 0:
        return float("nan"), float("nan")
    rate = float(by_opening.mean())
    centred = Grouped.of(by_opening, group).centred
    groups = len(centred)
    z = float(scipy.special.ndtri((1 + confidence) / 2))
    trials = float(groups)
    if groups < scores.size and groups > 1:
        error = float((centred**2).sum()) * groups / (groups - 1)
        z = float(scipy.special.stdtrit(groups - 1, (1 + confidence) / 2))
        if error > SPREAD_MIN**2:
            trials = min(float(scores.size), rate * (1 - rate) / error)
    middle = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = (
        z
        / (1 + z * z / trials)
        * math.sqrt(max(rate * (1 - rate), 0.0) / trials + z * z / (4 * trials * trials))
    )
    return max(0.0, middle - half), min(1.0, middle + half)


def detectable_difference(contrast: Contrast) -> float:
    """Return the difference that these openings detect with power 0.8 at two-sided 0.05.

    NaN for one opening.
    """
    if contrast.n < 2:
        return math.nan
    if not contrast.sd > SPREAD_MIN:
        return unseen_bound(contrast.groups)
    error = math.hypot(contrast.sd / math.sqrt(contrast.n), contrast.shared_sd)
    return (Z_TWO_SIDED_95 + Z_POWER_80) * error
