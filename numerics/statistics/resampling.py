"""Means resampled by opening, or by the group of openings that belong together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.special
from numpy.typing import NDArray

from loopscope.numerics.statistics.lattice import Law, bootstrap_law

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

UNITS_MIN = 8
"""With fewer openings, or groups of them, resamples reach no further than what was seen, and the
interval is that of t."""


@dataclass(frozen=True)
class Grouped:
    """Values summed within their groups, as parts of the overall mean.

    ``parts`` [groups] add up to the mean; ``centred`` [groups] are the parts less what each
    group's size alone would give, and add up to 0.
    """

    parts: Floats
    centred: Floats

    @staticmethod
    def of(values: Floats, group: Integers | None) -> Grouped:
        """Sum ``values`` by ``group`` (the number of each value's group; None: each its own)."""
        n = len(values)
        places = np.arange(n) if group is None else np.unique(group, return_inverse=True)[1]
        sums = np.bincount(places, weights=values)
        sizes = np.bincount(places)
        if (sizes == 1).all():
            sums = values.astype(np.float64)  # no rounding by the sum
        return Grouped(sums / n, (sums - sizes * values.mean()) / n)


@dataclass(frozen=True)
class Resampled:
    """The expanded percentile bootstrap of a mean, which gives an interval for any confidence.

    ``law`` is that of all resamples of the ``units`` (whole groups), by convolution; ``middle`` its
    mean and ``share`` how many values were drawn for one of ours. With fewer than eight groups
    there is none, and the interval is that of t. ``blur_sd`` is the standard deviation of an
    independent normal error of the mean.
    """

    estimate: float
    centred: Floats
    blur_sd: float
    law: Law | None = None
    units: int = 0
    middle: float = 0.0
    share: float = 1.0

    @staticmethod
    def of(
        values: Floats, *, group: Integers | None = None, unit: float = 0.0, blur_sd: float = 0.0
    ) -> Resampled:
        """Resample ``values``, of which there must be one.

        The percentile interval is too narrow where hits are rare, since what was not seen cannot
        be resampled: so one value of ``unit`` (the weight of one hit) above and one below 0 are
        added to what is resampled, as Bonett and Price 2012 add one discordant pair of each sort;
        the interval stays around the mean of the values.
        """
        estimate = float(values.mean())
        centred = Grouped.of(values, group).centred
        if len(centred) < UNITS_MIN:
            return Resampled(estimate, centred, blur_sd)
        drawn = values if group is None else centred * len(values)
        units = len(drawn)
        if unit:
            drawn = np.concatenate([drawn, [unit, -unit]])
        law, share = bootstrap_law(drawn), len(drawn) / len(values)
        return Resampled(estimate, centred, blur_sd, law, units, float(drawn.mean()), share)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the bounds of the mean; without spread or unit they have no width.

        The plain percentile interval is too narrow for few groups; its tail α/2 becomes
        Φ(√(g/(g−1)) · t(α/2, g−1)) (Hesterberg 2015, "What teachers should know about the
        bootstrap", section 5.3).
        """
        if self.law is None:
            half = self._t_error * _t_quantile(len(self.centred), (1 + confidence) / 2)
            return self.estimate - half, self.estimate + half
        tail = expanded_tail((1 - confidence) / 2, self.units)
        low, high = self.law.interval(tail, self.blur_sd / self.share)
        return self._shift + self.share * low, self._shift + self.share * high

    def p_above(self, value: float) -> float:
        """Return the smallest one-sided level at which the interval lies above ``value``."""
        if self.law is None:
            return self._t_tail(value - self.estimate)
        place = (value - self._shift) / self.share
        return unexpanded_tail(self.law.below(place, self.blur_sd / self.share), self.units)

    def p_below(self, value: float) -> float:
        """Return the smallest one-sided level at which the interval lies below ``value``."""
        if self.law is None:
            return self._t_tail(self.estimate - value)
        place = (value - self._shift) / self.share
        return unexpanded_tail(self.law.above(place, self.blur_sd / self.share), self.units)

    @property
    def _shift(self) -> float:
        return self.estimate - self.share * self.middle

    @property
    def _t_error(self) -> float:
        """The standard error of a mean with these parts; 0 for one part."""
        units = len(self.centred)
        if units < 2:
            return 0.0
        return math.sqrt(float((self.centred**2).sum()) * units / (units - 1) + self.blur_sd**2)

    def _t_tail(self, distance: float) -> float:
        """Return the probability of a t variable below ``distance``, in the unit of the mean."""
        error = self._t_error
        if error == 0:
            return float(distance >= 0)
        return float(scipy.special.stdtr(len(self.centred) - 1, distance / error))


def _t_quantile(units: int, probability: float) -> float:
    return float(scipy.special.stdtrit(units - 1, probability)) if units > 1 else 0.0


def expanded_tail(tail: float, n: int) -> float:
    """Return the bootstrap quantile that covers like the t interval of ``n`` values does."""
    if n < 2:
        return tail
    quantile = math.sqrt(n / (n - 1)) * scipy.special.stdtrit(n - 1, tail)
    return float(scipy.special.ndtr(quantile))


def unexpanded_tail(tail: float, n: int) -> float:
    """Return the tail that ``expanded_tail`` makes ``tail`` of."""
    if n < 2:
        return tail
    quantile = math.sqrt((n - 1) / n) * scipy.special.ndtri(tail)
    return float(scipy.special.stdtr(n - 1, quantile))
