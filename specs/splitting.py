"""The rules of a splitting graph: when a fine latent is a twin, absorbed it or stands firmly."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from loopscope.specs.fields import Spec, Unit
from loopscope.specs.payloads.geometry import COSINE_FLOOR

ShareOfOne = Annotated[float, Field(gt=0.0, le=1.0)]


class SplittingRules(Spec):
    """When a fine latent carries a coarse one on, and beside how much chance it is shown."""

    twin_cosine: Annotated[ShareOfOne, Unit("cosine")] = 0.7
    """From this cosine on a child is the coarse latent once more: its twin."""
    min_hole: Annotated[ShareOfOne, Unit("share of prompts")] = 0.5
    """A latent was absorbed if its twin is silent on at least this share of the prompts on which
    it and another child of its own fire."""
    draws: Annotated[int, Field(ge=20, le=10_000), Unit("draws")] = 200
    """Times that activations are dealt to other fine rows: the edges that chance makes."""
    resamples: Annotated[int, Field(ge=20, le=10_000), Unit("resamples")] = 100
    """Random halves of the prompts on which each edge is asked for again."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of the draws and of the halves."""


def check_listed(min_cosine: float, field: str) -> None:
    """Raise ValueError where the geometry does not list all pairs of this cut-off."""
    if min_cosine < COSINE_FLOOR:
        raise ValueError(
            f"splitting follows pairs that the geometry lists, which are those from a cosine of "
            f"{COSINE_FLOOR:g} on; found {field} {min_cosine:g}: raise it, or leave splitting out"
        )
