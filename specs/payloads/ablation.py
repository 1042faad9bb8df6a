"""The payload and the metrics of the stage *ablation*."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from loopscope.specs.payloads.capture import ChatWork
from loopscope.specs.payloads.references import (
    DecompositionReference,
    ModelReference,
    NeededArtifact,
    UpstreamArtifact,
)

Part = Literal["anchor", "children", "both"]
"""What is ablated: the steered anchor, its children, or all of them."""
PARTS: tuple[Part, ...] = ("anchor", "children", "both")
Control = Literal["alikeInText", "alikeOnPrompts"]
"""What a control is matched by: rate over text and norm, or what it does on the target prompts."""
CONTROLS: tuple[Control, ...] = ("alikeInText", "alikeOnPrompts")


class AblationWork(TypedDict):
    """The part of the payload that enters the digest as it stands."""

    prompts: int
    draws: int
    seed: int
    lexicon: list[str]
    hook: str
    chat: NotRequired[ChatWork]


class AblationPayload(AblationWork):
    """What an ablation is made from."""

    model: ModelReference
    mapping: UpstreamArtifact
    coarse: DecompositionReference
    fine: DecompositionReference
    geometry: NeededArtifact


class AblationNumber(TypedDict):
    """What one part is worth: mean loss in nats with its interval, the word and its p (Holm)."""

    loss: float
    low: float
    high: float
    answer: str
    p: float


class AblationMetrics(TypedDict):
    """The numbers of an ablation; ``held_out``: these prompts chose no latent."""

    prompts: int
    held_out: bool
    tokens: int
    latents: int
    concept_tokens: int
    parts: dict[str, AblationNumber]
