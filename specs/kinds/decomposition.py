"""Decomposition: a capture's latent activations in one dictionary."""

from __future__ import annotations

from typing import Literal

from loopscope.specs.fields import Reference, Spec
from loopscope.specs.rules import Expected, Selection
from loopscope.specs.sources import Dictionary

Aggregation = Literal["last", "max", "mean"]


class DecompositionSpec(Spec):
    """Latent activations of a capture in one dictionary."""

    capture_ref: Reference
    """The Capture to decompose."""
    dictionary: Dictionary
    """The sparse autoencoder."""
    aggregation: Aggregation = "last"
    """How a prompt's tokens become one value; ``max`` and ``mean`` need ``positions: all`` (or
    ``assistant``)."""
    selection: Selection = Selection()
    """Which latents are candidates for the concept."""
    calibration: Expected | None = None
    """What the dictionary must do on the capture's ``calibrationText``; left out, it is measured
    and not checked."""
