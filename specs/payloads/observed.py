"""Observed inputs as they are stored: what models and dictionaries were found to be.

The JSON of ``ModelFacts`` and ``DictionaryFacts`` in ``inputs``. What an older version did not
write may be missing.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from loopscope.specs.payloads.references import DictionaryReference, ModelReference


class ObservedModel(TypedDict):
    """A resolved model; ``ref`` is what a job carries of it.

    ``chat_template`` is there where the reference asked for it.
    """

    ref: ModelReference
    d_model: int
    n_layers: NotRequired[int | None]
    d_heads: NotRequired[int | None]
    d_mlp: NotRequired[int | None]
    parallel: NotRequired[bool]
    architecture: str
    quantised: NotRequired[str | None]
    block_weights: NotRequired[int | None]
    vocabulary: NotRequired[int | None]
    chat_template: NotRequired[str]


class ObservedDictionary(TypedDict):
    """A resolved dictionary; ``ref`` is what a job carries of it."""

    ref: DictionaryReference
    architecture: str
    d_in: int
    d_sae: int
    hook_name: NotRequired[str | None]
    dtype: NotRequired[str]
    model_names: NotRequired[list[str]]
    notes: NotRequired[list[str]]
    write_hook: NotRequired[str | None]
    d_out: NotRequired[int | None]
