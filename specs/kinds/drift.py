"""Drift: how far an anchoring reaches, and how far samples wander from what is anchored."""

from __future__ import annotations

from loopscope.specs.fields import Reference
from loopscope.specs.rules import DriftRules


class DriftSpec(DriftRules):
    """How fast an anchoring fades over neutral text, and what temperature adds to it.

    Anchored are a system prompt, steering on a prefix alone, and steering at every token.
    """

    capture_ref: Reference
    """Capture whose model and hook are used."""
    mapping_ref: Reference
    """Mapping whose directions were steered."""
    steering_ref: Reference
    """Steering whose system prompt, openings, lexicon and calibrated vectors are used."""
