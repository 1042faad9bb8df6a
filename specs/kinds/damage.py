"""Damage: what arms take from a model beside what they are for."""

from __future__ import annotations

from loopscope.specs.fields import Reference
from loopscope.specs.rules import DamageRules


class DamageSpec(DamageRules):
    """What the arms of a Steering do to ordinary text, to easy questions and to other concepts."""

    capture_ref: Reference
    """Capture whose model and hook are used."""
    mapping_ref: Reference
    """Mapping whose directions were steered."""
    steering_ref: Reference
    """Steering whose arms, at the norms that were found, are tried."""
