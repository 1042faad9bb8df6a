"""The payload and the metrics of the stage *scores*: one outcome of one set of texts."""

from __future__ import annotations

from typing import TypedDict

from loopscope.specs.json_values import JsonObject
from loopscope.specs.payloads.references import UpstreamArtifact
from loopscope.specs.payloads.steering import Opening


class ScoresPayload(TypedDict):
    """What scores are made from: ``asked`` and ``beside`` are those of ``OF_TEXTS``."""

    outcome: str
    asked: JsonObject
    beside: JsonObject
    openings: list[Opening]
    steered: UpstreamArtifact


class ScoresMetrics(TypedDict):
    """The numbers of scores: texts, how many of them differ, and how many have no number."""

    outcome: str
    texts: int
    different_texts: int
    unknown: int
