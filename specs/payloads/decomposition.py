"""The payload and the metrics of the stage *decomposition*."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from loopscope.specs.payloads.references import DictionaryReference, Preflights, UpstreamArtifact
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


class DecompositionPayload(DecompositionWork):
    """What a decomposition is made from."""

    capture: UpstreamArtifact
    dictionary: DictionaryReference


class DecompositionMetrics(TypedDict):
    """The numbers of a decomposition; a fraction of no variance is None."""

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
