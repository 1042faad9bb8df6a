"""The payload and the metrics of the stage *decomposition*."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from loopscope.specs.payloads.capture import CapturePayload
from loopscope.specs.payloads.references import (
    DictionaryReference,
    Preflights,
    UpstreamArtifact,
)
from loopscope.specs.spec_json import ExpectedJson


class DecompositionWork(TypedDict):
    """The part of the payload that enters the digest as it stands.

    ``splits`` has an entry for each prompt of the capture; so has ``groups``, where some prompts
    belong together.
    """

    aggregation: Literal["last", "max", "mean"]
    splits: list[Literal["discover", "test"]]
    groups: NotRequired[list[int]]
    calibration: NotRequired[ExpectedJson]


class TextsAgain(TypedDict):
    """The capture's own payload, for a dictionary that reads the tokens before as well.

    Its texts are read again.
    """

    captured: NotRequired[CapturePayload]


class DecompositionPayload(DecompositionWork, TextsAgain):
    """What a decomposition is made from."""

    capture: UpstreamArtifact
    dictionary: DictionaryReference


class DecompositionMetrics(TypedDict):
    """The numbers of a decomposition; a fraction of no variance is None.

    Only where ``text_fvu`` is above 1: ``nearby_fvu``, by hook on some prompts (empty where that
    could not be found out), and ``nearby``, the same in words.
    """

    l0: float
    fvu: float | None
    cosine: float
    active: int
    near_edge: int
    alive: int
    dead: int
    d_sae: int
    rows: int
    population: str
    test_prompts: int
    text_tokens: int
    text_l0: float
    text_fvu: float | None
    preflights: Preflights
    nearby_fvu: NotRequired[dict[str, float]]
    nearby: NotRequired[str]
