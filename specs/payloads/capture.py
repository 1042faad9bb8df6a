"""The payload and the metrics of the stage *capture*."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from loopscope.specs.payloads.references import ModelReference, Preflights
from loopscope.specs.spec_json import PositionsJson


class ChatWork(TypedDict):
    """The chat template that texts are put into, and what is put there beside them.

    ``template`` is the text of the template, whichever file it was read from.
    """

    template: str
    system: NotRequired[str]
    assistantPrefix: NotRequired[str]
    addGenerationPrompt: bool


class CapturedPrompt(TypedDict):
    """One prompt: ``condition`` is target, neutral or hard-negative."""

    id: str
    text: str
    condition: str


class CaptureWork(TypedDict):
    """The part of the payload that enters the digest as it stands."""

    hook: str
    writeHook: NotRequired[str]
    prompts: list[CapturedPrompt]
    positions: PositionsJson
    maxTokens: int
    calibrationText: list[str]
    chat: NotRequired[ChatWork]


class CapturePayload(CaptureWork):
    """What a capture is made from."""

    model: ModelReference


class CaptureMetrics(TypedDict):
    """The numbers of a capture; ``tokens`` and ``text_tokens`` without BOS.

    ``d_model`` is the width at the hook, ``d_write`` that at the write hook, where there is one;
    norms are then those there.
    """

    prompts: int
    tokens: int
    d_model: int
    d_write: NotRequired[int]
    median_norm: float
    median_centred_norm: float
    text_tokens: int
    preflights: Preflights
