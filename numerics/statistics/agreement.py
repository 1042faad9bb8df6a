"""Agreement of two raters beyond chance: Cohen's kappa with an interval."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special
from numpy.typing import NDArray

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Agreement:
    """Cohen's kappa over ``n`` texts in ``units`` openings, with its 95 % interval.

    ``observed`` is the share of texts on which both say the same. ``kappa`` is NaN where both say
    one and the same thing of every text, which chance does as well; ``low`` and ``high`` are NaN
    there and for fewer than two openings.
    """

    n: int
    units: int
    observed: float
    kappa: float
    low: float
    high: float


def cohen_kappa(
    first: Sequence[int], second: Sequence[int], units: Sequence[Hashable]
) -> Agreement:
    """Return how far two raters agree on texts [texts] beyond chance (Cohen 1960).

    kappa = (p_o - p_e) / (1 - p_e), with p_o the share on which they agree and p_e what it would be
    if each kept how often it says what and both were independent. The interval is kappa +- t s:
    s**2 sums the squares of kappa's influence function over ``units`` (openings: their texts begin
    alike and are drawn with the same random numbers), times G / (G - 1) of G units, and t has
    G - 1 degrees of freedom. With one text a unit s is that of Fleiss, Cohen and Everitt (1969),
    that factor aside. Raises ValueError without a text, and for lists of different lengths.
    """
    if not first or not len(first) == len(second) == len(units):
        raise ValueError("agreement needs the same texts of both raters, and at least one")
    a, b = np.asarray(first), np.asarray(second)
    words = np.unique(np.concatenate([a, b]))
    own, other = (np.array([(said == word).mean() for word in words]) for said in (a, b))
    observed, expected = float((a == b).mean()), float(own @ other)
    groups = list(dict.fromkeys(units))
    if expected >= 1.0:
        nan = math.nan
        return Agreement(len(a), len(groups), observed, nan, nan, nan)
    kappa = (observed - expected) / (1.0 - expected)
    places = np.searchsorted(words, np.stack([a, b]))
    of_expected = other[places[0]] + own[places[1]] - 2.0 * expected
    influence = ((a == b) - observed) * (1.0 - expected) - of_expected * (1.0 - observed)
    deviation = _deviation(influence / (1.0 - expected) ** 2, units, groups)
    low, high = np.clip([kappa - deviation, kappa + deviation], -1.0, 1.0).tolist()
    return Agreement(len(a), len(groups), observed, kappa, low, high)


def _deviation(
    influence: NDArray[np.float64], units: Sequence[Hashable], groups: Sequence[Hashable]
) -> float:
    """Return half the width of the interval; NaN for a single unit."""
    if len(groups) < 2:
        return math.nan
    number = {group: place for place, group in enumerate(groups)}
    sums = np.bincount([number[unit] for unit in units], weights=influence)
    freedom = len(groups) - 1
    variance = float(sums @ sums) / len(influence) ** 2 * len(groups) / freedom
    t = float(scipy.special.stdtrit(freedom, 0.5 + CONFIDENCE / 2.0))
    return t * math.sqrt(variance)
