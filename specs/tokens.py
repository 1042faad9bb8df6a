"""Advice about a model's special tokens."""

from __future__ import annotations

BOS_ADVICE = (
    "use a model that has one. If its dictionaries were trained with another token at the start of "
    "each text (often EOS), name a copy of the model's folder whose tokenizer_config.json says "
    "that one as bos_token"
)
