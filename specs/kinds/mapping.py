"""Mapping: fine latents beside coarse ones, and the gate."""

from __future__ import annotations

from loopscope.specs.fields import Reference
from loopscope.specs.rules import Gate, MappingRules


class MappingSpec(MappingRules):
    """Fine latents mapped onto coarse ones, and the gate."""

    coarse_ref: Reference
    """Decomposition by the coarse dictionary."""
    fine_ref: Reference
    """Decomposition by the fine dictionary."""
    gate: Gate = Gate()
    """When the pair of dictionaries counts as resolving the concept further."""
