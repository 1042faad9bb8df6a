"""Steering: generation along the directions of a mapping."""

from __future__ import annotations

from typing import Literal, cast

from pydantic import model_validator

from loopscope.specs.fields import Reference
from loopscope.specs.rules import SteeringRules
from loopscope.specs.splits import Splits, labelled
from loopscope.specs.texts_json import GroupedTextsJson


class SteeringSpec(SteeringRules):
    """Generation steered along the directions that a mapping found."""

    capture_ref: Reference
    """The Capture whose model, hook and residual norms are used."""
    mapping_ref: Reference
    """The Mapping whose directions are used."""
    gate_policy: Literal["report", "enforce"] = "report"
    """``report``: steer whatever the gate says; ``enforce``: steer only after GO."""
    splits: Splits = Splits()
    """Which openings may choose strengths, and which are scored."""

    @model_validator(mode="after")
    def _divisible(self) -> SteeringSpec:
        self.splits.check_openings(labelled(cast(GroupedTextsJson, self.prompts.canonical())))
        return self
