"""The payload and the metrics of the stage *mapping*."""

from __future__ import annotations

from typing import TypedDict

from loopscope.specs.payloads.references import (
    DecompositionReference,
    NamedUpstreamArtifact,
    NeededArtifact,
)
from loopscope.specs.spec_json import GateRulesJson, MappingRulesJson, SelectionJson


class MappingWork(MappingRulesJson):
    """The part of the payload that enters the digest as it stands."""

    gate: GateRulesJson
    selection: SelectionJson


class CoarseReference(DecompositionReference):
    """The coarse decomposition with the latents that passed its selection, best first."""

    candidates: list[int]


class MappingPayload(MappingWork):
    """What a mapping is made from."""

    coarse: CoarseReference
    fine: DecompositionReference
    capture: NamedUpstreamArtifact
    geometry: NeededArtifact


class MappingMetrics(TypedDict):
    """The numbers of a mapping. What is not known, or belongs to no anchor, is None."""

    verdict: str
    anchors: int
    passing: int
    children: int
    mean_rank: float | None
    percentile: float | None
    maximum_percentile: float | None
    null_anchors: int
    control_p: float
    stability: float
    confirmed: int | None
    confirmation: str
    cautioned: int
    share_of_all: float
    share_of_firing: float | None
    edges_tested: int
    edges_significant: int
    empty_corner_count: int
    empty_corner_share: float | None
    readings: dict[str, int]
    arms: list[str]
    anchor: int | None
    anchor_rank: float | None
    reason: str
