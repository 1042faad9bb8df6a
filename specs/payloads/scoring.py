"""The payload and the metrics of the stage *scoring*."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from loopscope.specs.artifacts.verdict import WordsP
from loopscope.specs.payloads.references import NeededArtifact, UpstreamArtifact
from loopscope.specs.payloads.steering import Opening


class Looked(TypedDict):
    """The place of each opening in the order of the looks, where a steering could stop early."""

    turns: NotRequired[list[int]]


class ScoringPayload(Looked):
    """What a scoring is made from; ``scores`` are by the names of their outcomes."""

    primary: str
    openings: list[Opening]
    minDifference: float
    maxArmCosine: float
    scores: dict[str, NeededArtifact]
    steered: UpstreamArtifact


class ScoringMetrics(TypedDict):
    """The numbers of a scoring: the verdict on the primary outcome, and what stands beside it.

    ``secondary`` counts the contrasts of further outcomes, ``secondary_found`` those with a p of at
    most 0.05 after Holm's correction; ``unknown`` the texts that the primary outcome has no number
    of.
    """

    verdict: str
    reason: str
    primary: str
    contrast: str | None
    estimate: float | None
    low: float | None
    high: float | None
    n: int
    p: NotRequired[WordsP]
    secondary: int
    secondary_found: int
    unknown: int
