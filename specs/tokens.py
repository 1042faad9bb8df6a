"""Advice about a model's special tokens."""

from __future__ import annotations

BOS_ADVICE = (
    "use a model that has one, or name in model.bosToken the token that its dictionaries were "
    "trained with at the start of each text (often EOS)"
)
