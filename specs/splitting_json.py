"""Rules of splitting graphs as they are stored."""

from __future__ import annotations

from typing import TypedDict


class SplittingRulesJson(TypedDict):
    """When a fine latent carries a coarse one on, and beside how much chance it is shown."""

    twinCosine: float
    minHole: float
    draws: int
    resamples: int
    seed: int
