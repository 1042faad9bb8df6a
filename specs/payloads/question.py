"""The payload and the metrics of the stage *question*."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from loopscope.specs.payloads.capture import ChatWork
from loopscope.specs.payloads.references import (
    DictionaryReference,
    ModelReference,
    UpstreamArtifact,
)
from loopscope.specs.payloads.steering import SteeringPayload
from loopscope.specs.spec_json import AskedLatentsJson, SteeredJson


class AskedDictionaries(TypedDict):
    """The two dictionaries."""

    coarse: DictionaryReference
    fine: DictionaryReference


class SteeredWork(TypedDict):
    """What follows under an arm.

    ``work`` is the payload of the steering with this opening alone, ``answered`` the steering whose
    table of arms says how long the vector is at a strength.
    """

    asked: SteeredJson
    work: SteeringPayload
    answered: UpstreamArtifact


class QuestionPayload(TypedDict):
    """What an answer is made from: a text, and either ``latents`` or ``steered``."""

    model: ModelReference
    hook: str
    text: str
    chat: NotRequired[ChatWork]
    latents: NotRequired[AskedLatentsJson]
    dictionaries: NotRequired[AskedDictionaries]
    steered: NotRequired[SteeredWork]


class QuestionMetrics(TypedDict):
    """The numbers of an answer.

    ``tokens`` of the text without BOS, ``firings`` of latents on them above 0, and ``answers``,
    the texts that were generated.
    """

    tokens: int
    firings: int
    answers: int
