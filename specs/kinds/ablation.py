"""Ablation: whether the model uses what a steered anchor and its children write."""

from __future__ import annotations

from pydantic import model_validator

from loopscope.specs.fields import Reference
from loopscope.specs.rules import AblationRules


class AblationSpec(AblationRules):
    """What target prompts lose of the concept where latents are taken out of the stream.

    Taken out are the steered anchor, its children, both, and latents matched to them.
    """

    capture_ref: Reference
    """Capture whose model, hook and target prompts are used."""
    mapping_ref: Reference
    """Mapping whose steered anchor and children are ablated."""

    @model_validator(mode="after")
    def _has_a_lexicon(self) -> AblationSpec:
        if self.lexicon is None:
            raise ValueError("an Ablation by itself needs lexicon: the words of the concept")
        return self
