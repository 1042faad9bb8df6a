"""``norms.json`` of a capture."""

from __future__ import annotations

from typing import TypedDict


class NormsDocument(TypedDict):
    """Lengths of the captured vectors, over ``n_tokens`` of ``population``."""

    median_norm: float
    median_centred_norm: float
    mean_norm: float
    n_tokens: int
    population: str
