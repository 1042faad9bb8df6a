"""Scoring: generated texts told apart by further outcomes."""

from __future__ import annotations

from loopscope.specs.fields import Reference
from loopscope.specs.scoring import ScoringRules


class ScoringSpec(ScoringRules):
    """Outcomes of the texts of a Steering; nothing is generated again."""

    steering_ref: Reference
    """Steering whose texts are scored."""
