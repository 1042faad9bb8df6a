"""The payload and the metrics of the stage *mapping*."""

from __future__ import annotations

from typing import Literal, TypedDict

from loopscope.specs.payloads.references import DecompositionReference, NamedUpstreamArtifact


class SelectionThresholds(TypedDict):
    """Which latents are candidates, as ``Selection`` declares it."""

    minSelectivity: float
    minFiringRateTarget: float
    maxFiringRateNeutral: float
    maxQ: float
    top: int


class GateThresholds(TypedDict):
    """When the answer is GO, as ``Gate`` declares it; its policy changes no number."""

    rule: Literal["cosine", "strict"]
    minSubfeatures: int
    minFineSelectivity: float
    nullAnchors: int
    minPercentile: float
    resamples: int
    minStability: float


class MappingThresholds(TypedDict):
    """When a fine latent belongs to a coarse one, as ``MappingRules`` declares it."""

    minCosine: float
    partialCosine: float
    minCorrelation: float
    topK: int
    permutations: int
    seed: int


class MappingWork(MappingThresholds):
    """The part of the payload that enters the digest as it stands."""

    gate: GateThresholds
    selection: SelectionThresholds


class CoarseReference(DecompositionReference):
    """The coarse decomposition with the latents that passed its selection, best first."""

    candidates: list[int]


class MappingPayload(MappingWork):
    """What a mapping is made from."""

    coarse: CoarseReference
    fine: DecompositionReference
    capture: NamedUpstreamArtifact


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
