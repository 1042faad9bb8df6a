"""The payload and the metrics of the stage *drift*."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from loopscope.specs.payloads.references import UpstreamArtifact
from loopscope.specs.payloads.steering import SteeringPayload

DriftAnchor = Literal["systemPrompt", "otherWords", "steeredPrefix", "steering"]
"""What anchors: words in front, other words as a control, steering on them, steering everywhere."""
ANCHORS: tuple[DriftAnchor, ...] = ("systemPrompt", "otherWords", "steeredPrefix", "steering")


class DriftRules(TypedDict):
    """What of a drift enters the digest as it stands."""

    distances: list[int]
    fillers: int
    temperatures: list[float]
    newTokens: int
    seed: int
    arm: NotRequired[str]
    strength: NotRequired[float]


class DriftPayload(TypedDict):
    """What a drift is made from.

    ``work`` is the payload of the steering with its lexicon and without what else scores texts,
    ``steered`` what it made; ``fillerText`` are the texts that fillers are made of, ``otherWords``
    those of the control; ``anchors`` lack the system prompt where there is none.
    """

    rules: DriftRules
    fillerText: list[str]
    otherWords: str
    anchors: list[DriftAnchor]
    work: SteeringPayload
    steered: UpstreamArtifact


class DriftNumber(TypedDict):
    """What became of one anchor: nats at the first and the last distance, and the half-life.

    ``half_life`` is in tokens, None where half of it is left at the last distance.
    """

    near: float
    far: float
    half_life: float | None
    half_life_low: float | None
    half_life_high: float | None
    fade: str
    p: float


class DriftMetrics(TypedDict):
    """The numbers of a drift."""

    arm: str
    strength: float
    openings: int
    fillers: int
    tokens: int
    concept_tokens: int
    anchors: dict[str, DriftNumber]
