"""Trace: the texts of a steering token by token, and where the stream went on the way."""

from __future__ import annotations

from loopscope.specs.fields import Reference
from loopscope.specs.rules import TraceRules


class TraceSpec(TraceRules):
    """The texts of a Steering, read once more: which tokens are steered, and the residual path.

    Nothing is generated again.
    """

    capture_ref: Reference
    """Capture whose model, hook and chat template are used."""
    mapping_ref: Reference
    """Mapping whose anchor and children were steered."""
    steering_ref: Reference
    """Steering whose texts are read."""
