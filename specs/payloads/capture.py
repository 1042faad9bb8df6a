"""The payload and the metrics of the stage *capture*."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from loopscope.specs.payloads.references import ModelReference, Preflights


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
    positions: Literal["last", "all"]
    maxTokens: int
    calibrationText: list[str]


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
