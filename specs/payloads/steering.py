"""The payload and the metrics of the stage *steering*."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from loopscope.specs.artifacts.verdict import WordsP
from loopscope.specs.outcomes import OutcomeFields
from loopscope.specs.payloads.capture import ChatWork
from loopscope.specs.payloads.references import (
    DecompositionReference,
    ModelReference,
    Preflights,
    UpstreamArtifact,
)
from loopscope.specs.spec_json import SamplingJson, SteeredPositionsJson, StopEarlyJson

Side = Literal["coarse", "fine"]
"""One of the two resolutions: under its name a payload refers to its decomposition."""
SIDES: tuple[Side, ...] = ("coarse", "fine")


class Opening(TypedDict):
    """A text to go on from; ``group`` is there where some openings belong together."""

    id: str
    text: str
    group: NotRequired[int]


class DeclaredSteering(TypedDict):
    """The fields that are taken over from the spec as they stand.

    ``method`` add and ``positions`` all are left out.

    ``chat`` is that of the capture's prompts; with it the system prompt is a system message.
    """

    arms: list[str]
    randomDraws: int
    strengthUnit: str
    strengths: list[float]
    samplesPerPrompt: int
    maxNewTokens: int
    sampling: SamplingJson
    minDifference: float
    maxArmCosine: float
    systemPrompt: NotRequired[str]
    systemPromptSeparator: NotRequired[str]
    systemPromptAs: NotRequired[Literal["systemMessage"]]
    placeboPrompt: NotRequired[str]
    method: NotRequired[Literal["clamp"]]
    positions: NotRequired[SteeredPositionsJson]
    probeHook: NotRequired[str]
    chat: NotRequired[ChatWork]
    stopEarly: NotRequired[StopEarlyJson]


class SteeredPlaces(TypedDict):
    """Where steering acts; ``readHook`` is where the latents of transcoders are read."""

    hook: str
    readHook: NotRequired[str]


class SteeringWork(DeclaredSteering, OutcomeFields, SteeredPlaces):
    """The part of the payload that enters the digest as it stands."""

    openings: list[Opening]
    neutralText: list[str]


class SteeringPayload(SteeringWork):
    """What a steering is made from."""

    model: ModelReference
    mapping: UpstreamArtifact
    capture: UpstreamArtifact
    coarse: DecompositionReference
    fine: DecompositionReference


class Interval(TypedDict):
    """A contrast between two arms with its 95 % interval; what is not known is None."""

    estimate: float
    low: float | None
    high: float | None


class SteeringResults(TypedDict):
    """What was found. What is not known is None, what does not apply is left out.

    ``p`` and ``primary`` (by contrast) are there where something was tested, ``budget_…`` where
    strengths are budgets, ``best_…`` where a direction was steered, ``unsteered_…`` with the arm
    ``none``; ``n_declared`` and ``looks`` where it might stop before all openings were steered.
    """

    verdict: str
    reason: str
    contrast: str | None
    estimate: float | None
    low: float | None
    high: float | None
    n: int
    n_needed: int | None
    samples_needed: int | None
    p: NotRequired[WordsP]
    primary: NotRequired[dict[str, Interval]]
    budget_texts: NotRequired[int]
    budget_sd: NotRequired[float | None]
    best_arm: NotRequired[str]
    best_strength: NotRequired[float]
    best_concept_rate: NotRequired[float]
    best_median_perplexity: NotRequired[float | None]
    unsteered_concept_rate: NotRequired[float]
    unsteered_median_perplexity: NotRequired[float | None]
    method: NotRequired[Literal["clamp"]]
    n_declared: NotRequired[int]
    looks: NotRequired[int]


class SteeringMetrics(SteeringResults):
    """The numbers of a steering."""

    preflights: Preflights
