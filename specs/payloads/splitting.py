"""The payload and the metrics of the stage *splitting*."""

from __future__ import annotations

from typing import TypedDict

from loopscope.specs.payloads.mapping import CoarseReference
from loopscope.specs.payloads.references import NeededArtifact
from loopscope.specs.spec_json import SplittingRulesJson


class SplittingWork(SplittingRulesJson, TypedDict):
    """The part of the payload that enters the digest as it stands."""

    minCosine: float
    minCorrelation: float


class SplittingPayload(SplittingWork, TypedDict):
    """What a splitting graph is made from; of both sides the candidates."""

    coarse: CoarseReference
    fine: CoarseReference
    geometry: NeededArtifact


class SplittingMetrics(TypedDict):
    """The numbers of a splitting graph: candidates by what became of them, edges beside chance.

    ``by_chance`` is the mean number of edges where activations are dealt to other fine rows, ``p``
    how often there are as many. ``stability`` is the mean share of halves that have an edge (None
    without one), ``unlisted`` counts coarse latents with more neighbours than are listed.
    """

    edges: int
    direct: int
    coarse: dict[str, int]
    fine: dict[str, int]
    by_chance: float
    p: float
    stability: float | None
    unlisted: int
