"""Facts of resolved models and dictionaries, as they are stored and stand in a status."""

from __future__ import annotations

from typing import TypedDict

from loopscope.specs.payloads.references import DictionaryReference, ModelReference


class ModelFactsJson(TypedDict):
    """A resolved model; ``n_layers`` and ``quantised`` are None where nothing is known of it."""

    ref: ModelReference
    d_model: int
    n_layers: int | None
    architecture: str
    quantised: str | None


class DictionaryFactsJson(TypedDict):
    """A resolved dictionary, with what it says of its training, and remarks for the reader."""

    ref: DictionaryReference
    architecture: str
    d_in: int
    d_sae: int
    hook_name: str | None
    dtype: str
    model_names: list[str]
    notes: list[str]
