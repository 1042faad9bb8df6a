"""Splitting: how the coarse latents of a concept become the fine ones."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from loopscope.specs.fields import Reference, Unit
from loopscope.specs.splitting import ShareOfOne, SplittingRules, check_listed


class SplittingSpec(SplittingRules):
    """The graph from the coarse candidates to the fine ones: split, merged, absorbed, born."""

    coarse_ref: Reference
    """Decomposition by the coarse dictionary."""
    fine_ref: Reference
    """Decomposition by the fine dictionary."""
    min_cosine: ShareOfOne = 0.3
    """Least decoder cosine of an edge: that of the mapping."""
    min_correlation: Annotated[float, Field(ge=0.0, le=1.0), Unit("Pearson r")] = 0.2
    """Least Pearson correlation over prompts of an edge: that of the mapping."""

    @field_validator("min_cosine")
    @classmethod
    def _is_listed(cls, min_cosine: float) -> float:
        check_listed(min_cosine, "minCosine")
        return min_cosine
