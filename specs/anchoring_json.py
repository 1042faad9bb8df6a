"""Rules of drifts and ablations as they are stored."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from loopscope.specs.texts_json import TextsJson


class AblationRulesJson(TypedDict):
    """On how many target prompts latents are taken out, and beside how many matched ones."""

    prompts: int
    draws: int
    lexicon: NotRequired[TextsJson]
    seed: int


class DriftRulesJson(TypedDict):
    """How far from an anchor it is looked for, and at which temperatures samples are drawn."""

    distances: list[int]
    fillerText: NotRequired[TextsJson]
    fillers: int
    arm: NotRequired[str]
    strength: NotRequired[float]
    temperatures: list[float]
    newTokens: int
    seed: int
