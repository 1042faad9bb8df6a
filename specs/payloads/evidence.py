"""The payload and the metrics of the stage *evidence*."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from loopscope.specs.payloads.capture import ChatWork
from loopscope.specs.payloads.references import (
    DecompositionReference,
    ModelReference,
    NeededArtifact,
    UpstreamArtifact,
)
from loopscope.specs.spec_json import EvidenceRulesJson, PositionsJson, SelectionJson


class EvidencePlaces(TypedDict):
    """Where latents are read; ``writeHook`` is where transcoders write."""

    hook: str
    writeHook: NotRequired[str]


class EvidenceWork(EvidenceRulesJson, EvidencePlaces):
    """The part of the payload that enters the digest as it stands.

    ``selection`` chooses the fine candidates.
    """

    positions: PositionsJson
    chat: NotRequired[ChatWork]
    selection: SelectionJson


class EvidencePayload(EvidenceWork):
    """What an evidence is made from."""

    model: ModelReference
    mapping: UpstreamArtifact
    coarse: DecompositionReference
    fine: DecompositionReference
    geometry: NeededArtifact


class EvidenceMetrics(TypedDict):
    """The numbers of an evidence.

    ``prompts`` are read token by token, ``firings`` the activations above 0 that are kept.
    ``largest_difference`` is how far a prompt's activation, made again from its tokens, is from
    that of the decomposition, relative to the latent's largest: rounding, unless something is
    wrong.
    ``lens`` is None, or why there is no logit lens.
    """

    latents: int
    prompts: int
    tokens: int
    firings: int
    largest_difference: float
    lens: str | None
