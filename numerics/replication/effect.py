"""Equivalence of two runs: the same contrast in both, paired where they share openings.

Two one-sided tests (Schuirmann 1987): the effects are the same where the 90 % interval of their
difference lies within ± the smallest practical difference. Else they differ where its 95 % interval
misses 0, and it is not known where it does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.special
from numpy.typing import NDArray

from loopscope.numerics.statistics.paired import paired_contrast

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Word = Literal["same effect", "another effect", "not known"]
Z_95, Z_90 = 1.959963984540054, 1.6448536269514722


@dataclass(frozen=True)
class Equivalence:
    """The difference of a contrast in two runs, second − first, and what it says.

    ``low`` and ``high`` bound it with 95 %, ``low_90`` and ``high_90`` with 90 %; ``p`` is the
    larger of the two one-sided p that it lies beyond ± the margin; ``n`` openings, 0 where they are
    not shared.
    """

    contrast: str
    word: Word
    difference: float
    low: float
    high: float
    low_90: float
    high_90: float
    p: float
    n: int


def paired_equivalence(
    contrast: str,
    first: Floats,
    second: Floats,
    margin: float,
    *,
    unit: float = 0.0,
    group: Integers | None = None,
) -> Equivalence:
    """Return the equivalence of a contrast's values [openings] in two runs with the same openings.

    A difference of two contrasts is at most 2. ``unit`` as of ``paired_contrast``. Raises
    ValueError without an opening.
    """
    found = paired_contrast(
        contrast, second, first, group=group, unit=unit, span=2.0, margin=margin
    )
    p = max(found.p_above_margin, found.p_below_margin)
    ends = found.low, found.high, found.low_90, found.high_90
    return Equivalence(contrast, _word(ends, margin), found.estimate, *ends, p=p, n=len(first))


@dataclass(frozen=True)
class Estimate:
    """A contrast of one run with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """The standard error that its interval amounts to."""
        return (self.high - self.low) / (2 * Z_95)


def unpaired_equivalence(
    contrast: str, first: Estimate, second: Estimate, margin: float
) -> Equivalence:
    """Return the same of two runs with other openings, from their intervals: the errors add up."""
    difference = second.value - first.value
    error = math.hypot(first.error, second.error)
    ends = (
        difference - Z_95 * error, difference + Z_95 * error,
        difference - Z_90 * error, difference + Z_90 * error,
    )  # fmt: skip
    away = (
        (abs(difference) - margin) / error
        if error > 0
        else math.copysign(math.inf, abs(difference) - margin)
    )
    p = float(scipy.special.ndtr(away))
    return Equivalence(contrast, _word(ends, margin), difference, *ends, p=p, n=0)


def _word(ends: tuple[float, float, float, float], margin: float) -> Word:
    low, high, low_90, high_90 = ends
    if -margin <= low_90 and high_90 <= margin:
        return "same effect"
    if low > 0 or high < 0:
        return "another effect"
    return "not known"
