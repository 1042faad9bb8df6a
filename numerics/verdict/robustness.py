"""Each arm's rate, its effect against unsteered text, and openings that it moved the wrong way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.statistics.paired import paired_contrast, rate_interval
from loopscope.numerics.verdict.cells import NONE

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ArmRates:
    """What an arm did to openings: shares and a mean paired difference with 95 % intervals.

    ``rate`` is the share of its texts with the concept, ``effect`` the same less unsteered text's,
    paired by opening, ``wrong_way`` the share of openings whose score falls below unsteered text's.
    NaN where there is no unsteered text, and of unsteered text itself.
    """

    arm: str
    openings: int
    rate: float
    low: float
    high: float
    effect: float
    effect_low: float
    effect_high: float
    wrong_way: float
    wrong_low: float
    wrong_high: float


def arm_rates(
    scores: Mapping[str, Floats], strengths: int, group: NDArray[np.int64] | None
) -> list[ArmRates]:
    """Return each arm's rates from its scores [openings, samples], a mean over ``strengths``."""
    before = scores.get(NONE)
    return [_rates(arm, own, before, strengths, group) for arm, own in scores.items()]


def _rates(
    arm: str,
    own: Floats,
    before: Floats | None,
    strengths: int,
    group: NDArray[np.int64] | None,
) -> ArmRates:
    low, high = rate_interval(own, group=group)
    beside = [float("nan")] * 6
    if before is not None and arm != NONE:
        after, least = own.mean(axis=1), before.mean(axis=1)
        unit = 1.0 / (own.shape[1] * strengths)
        contrast = paired_contrast(f"{arm}-{NONE}", after, least, group=group, unit=unit)
        fell = (after < least).astype(np.float64)[:, None]
        wrong = rate_interval(fell, group=group)
        beside = [contrast.estimate, contrast.low, contrast.high, float(fell.mean()), *wrong]
    return ArmRates(arm, len(own), float(own.mean()), low, high, *beside)
