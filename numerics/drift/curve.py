"""The curve of an anchoring over distance: bands, half-life, and a test against no fade.

The unit is an opening behind a filler. Openings that share a filler are one group, and groups are
resampled and flipped as in ``statistics.paired``. Without torch: reports ask again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.statistics.multiple_tests import holm
from loopscope.numerics.statistics.paired import (
    SPREAD_MIN,
    Contrast,
    paired_contrast,
    without_gaps,
)
from loopscope.numerics.statistics.resampling import Resampled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEVEL = 0.05
STEPS_BETWEEN = 8
"""Places between two measured distances at which the interval of a half-life is looked up."""

Word = Literal["fades", "grows", "no fade shown", "no effect"]


@dataclass(frozen=True)
class HalfLife:
    """The distance at which half of the effect at the first one is left, in tokens.

    ``estimate`` is where the mean curve first comes down to it, None where it never does within the
    distances measured. ``low`` and ``high`` bound it with 95 % confidence: at every distance before
    ``low`` surely more than half is left, and at ``high`` surely less is, for the first time. None
    for ``high``: that is not reached; for ``low``: surely more is left at all distances.
    """

    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Fade:
    """Whether an effect is smaller at the last distance than at the first.

    ``effect`` is that at the first distance, ``difference`` first minus last; ``p`` is one-sided,
    ``p_holm`` corrected over all that were tested together.
    """

    effect: Contrast
    difference: Contrast
    p: float
    p_holm: float
    word: Word


def band(values: Floats, group: Integers, *, span: float | None = None) -> Contrast:
    """Return the mean of ``values`` over units with its interval. Raises ValueError without any."""
    mean = paired_contrast("mean", values, np.zeros(len(values)), group=group, span=span)
    return without_gaps(mean)


def half_life(distances: Sequence[int], values: Floats, group: Integers) -> HalfLife:
    """Return when half of the effect at ``distances[0]`` is left. ``values`` [units, distances].

    Between two distances each unit is taken to be linear in log(1 + distance). The interval is that
    of a ratio of means by inversion (Fieller 1954): the distances at which the 95 % interval of the
    mean of v(d) − v(first)/2 holds 0, until it first lies below.
    """
    places = np.log1p(np.asarray(distances, dtype=np.float64))
    tried = _between(places)
    left = values - values[:, :1] / 2
    at = np.stack([np.interp(tried, places, row) for row in left], axis=1)
    bounds = np.array([_bounds(row, group) for row in at])
    estimate = _first_below(tried, at.mean(axis=1))
    low, high = (_first_below(tried, bounds[:, side]) for side in (0, 1))
    return HalfLife(*(None if one is None else math.expm1(one) for one in (estimate, low, high)))


def _bounds(values: Floats, group: Integers) -> tuple[float, float]:
    """Return the 95 % interval of a mean; without spread it has no width."""
    if np.ptp(values) < SPREAD_MIN:
        return float(values.mean()), float(values.mean())
    return Resampled.of(values, group=group).interval(0.95)


def _between(places: Floats) -> Floats:
    parts = [
        np.linspace(a, b, STEPS_BETWEEN, endpoint=False) for a, b in itertools.pairwise(places)
    ]
    return np.concatenate([*parts, places[-1:]])


def _first_below(places: Floats, values: Floats) -> float | None:
    """Return where the line through the values first comes down to 0; None where it does not."""
    below = np.flatnonzero(~(values > 0))
    if not below.size:
        return None
    last = int(below[0])
    if last == 0:
        return float(places[0])
    a, b = float(values[last - 1]), float(values[last])
    share = a / (a - b) if math.isfinite(b) else 0.0
    return float(places[last - 1] + share * (places[last] - places[last - 1]))


@dataclass(frozen=True)
class Effect:
    """An effect by unit at the first and at the last distance, and the largest that one can be."""

    first: Floats
    last: Floats
    span: float | None = None


def fades(effects: Sequence[Effect], group: Integers) -> list[Fade]:
    """Return for each effect whether it fades; all are corrected together (Holm).

    A fade is said of an effect that is surely above 0 at the first distance, where the corrected
    one-sided p of first − last is at most 0.05; *grows* likewise. No fade shown is no proof of
    none: the interval of the difference says how large one may be.
    """
    differences = [
        without_gaps(paired_contrast("fade", one.first, one.last, group=group, span=one.span))
        for one in effects
    ]
    starts = [band(one.first, group, span=one.span) for one in effects]
    falling = holm(np.array([one.p_gain for one in differences]))
    rising = holm(np.array([one.p_loss for one in differences]))
    return [
        Fade(start, difference, difference.p_gain, float(p), _word(start, float(p), float(up)))
        for start, difference, p, up in zip(starts, differences, falling, rising, strict=True)
    ]


def _word(start: Contrast, falling: float, rising: float) -> Word:
    if falling <= LEVEL and start.low > 0:
        return "fades"
    if rising <= LEVEL:
        return "grows"
    return "no fade shown" if start.low > 0 else "no effect"
