"""Parts of a steering's spec as they are stored: how tokens are drawn, and when it may end."""

from __future__ import annotations

from typing import TypedDict


class SamplingJson(TypedDict):
    """How the next token is drawn."""

    temperature: float
    topK: int
    topP: float
    greedy: bool
    seed: int


class StopEarlyJson(TypedDict):
    """When a steering may end before all of its openings were steered."""

    every: int
