"""Evidence: what the latents of a mapping fire on, token by token."""

from __future__ import annotations

from loopscope.specs.fields import Reference
from loopscope.specs.rules import EvidenceRules, Selection


class EvidenceSpec(EvidenceRules):
    """What the latents of a mapping fire on: prompts token by token, logit lens, nearest latents.

    Shown are the anchors, their children, a matched control of each anchor and the fine candidates.
    """

    capture_ref: Reference
    """Capture whose prompts are shown."""
    mapping_ref: Reference
    """Mapping whose anchors and children are shown."""
    selection: Selection = Selection()
    """Which latents are candidates: of the fine dictionary these are shown as well."""
