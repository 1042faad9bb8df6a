"""Specs as they are stored: the JSON of each kind, with its defaults, under the YAML's names.

Optional fields that were not given are left out. Objects of earlier versions lack fields that have
been added since, and are read with their defaults: those are marked as not required here as well.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from loopscope.specs.anchoring_json import AblationRulesJson, DriftRulesJson
from loopscope.specs.json_values import JsonObject
from loopscope.specs.outcomes_json import DamageRulesJson, ScoringRulesJson
from loopscope.specs.splitting_json import SplittingRulesJson as SplittingRulesJson
from loopscope.specs.steering_json import SamplingJson as SamplingJson
from loopscope.specs.steering_json import StopEarlyJson as StopEarlyJson
from loopscope.specs.texts_json import CountedJson as CountedJson
from loopscope.specs.texts_json import GroupedTextsJson as GroupedTextsJson
from loopscope.specs.texts_json import GroupsJson as GroupsJson
from loopscope.specs.texts_json import SampleJson as SampleJson
from loopscope.specs.texts_json import TextsJson as TextsJson


class ModelSourceJson(TypedDict, total=False):
    """One of package, gguf, folder and hub, with what belongs to it."""

    package: str
    gguf: str
    folder: str
    hub: str
    revision: str
    sha256: str


class ModelJson(TypedDict):
    """A language model as it was named."""

    name: str
    source: NotRequired[ModelSourceJson]
    dtype: NotRequired[str]
    quantised: NotRequired[str]
    bosToken: NotRequired[str]


class DictionaryJson(TypedDict, total=False):
    """A dictionary as it was named: a path, or a release and an id."""

    path: str
    release: str
    id: str
    revision: str
    sha256: str
    convert: str
    prefix: int
    usableAt: str
    usableOn: str


class ChatJson(TypedDict):
    """How texts are put into a chat template."""

    template: str
    templateText: NotRequired[str]
    system: NotRequired[str]
    assistantPrefix: NotRequired[str]
    addGenerationPrompt: bool


class PositionJson(TypedDict, total=False):
    """One token of each prompt, by one of the two."""

    token: str
    index: int


PositionsJson = Literal["last", "all", "lastContent", "assistant", "afterTemplate"] | PositionJson


SteeredPositionsJson = (
    Literal["all", "opening", "generated", "assistant", "last", "lastContent", "afterTemplate"]
    | PositionJson
)


class PromptSetsJson(TypedDict):
    """The prompts of each condition."""

    target: GroupedTextsJson
    neutral: GroupedTextsJson
    hardNegatives: NotRequired[GroupedTextsJson]
    chat: NotRequired[ChatJson]


class SplitsJson(TypedDict):
    """Which texts choose and which only test."""

    seed: int
    discover: float
    test: NotRequired[float]
    calibrate: float


class SelectionJson(TypedDict):
    """Which latents are candidates."""

    minSelectivity: float
    minFiringRateTarget: float
    maxFiringRateNeutral: float
    maxQ: float
    top: int


class ExpectedJson(TypedDict):
    """The [low, high] that a dictionary has to keep to on the calibration text."""

    l0: list[float]
    fvu: list[float]


class MappingRulesJson(TypedDict):
    """When a fine latent belongs to a coarse one."""

    minCosine: float
    partialCosine: float
    minCorrelation: float
    topK: int
    permutations: int
    seed: int
    anchor: NotRequired[int]


class GateRulesJson(TypedDict):
    """When the answer is GO."""

    rule: Literal["cosine", "strict"]
    minSubfeatures: int
    minFineSelectivity: float
    nullAnchors: int
    minPercentile: float
    resamples: int
    minStability: float
    sensitivity: NotRequired[bool]


class GateJson(GateRulesJson):
    """The same with what follows from the answer."""

    policy: str


class SteeringRulesJson(TypedDict):
    """How generation is steered and scored."""

    arms: list[str]
    randomDraws: int
    systemPrompt: NotRequired[str]
    systemPromptSeparator: NotRequired[str]
    placeboPrompt: NotRequired[str]
    method: NotRequired[Literal["add", "clamp"]]
    positions: NotRequired[SteeredPositionsJson]
    strengthUnit: str
    strengths: list[float]
    samplesPerPrompt: int
    maxNewTokens: int
    sampling: SamplingJson
    prompts: GroupedTextsJson
    neutralText: NotRequired[TextsJson]
    lexicon: TextsJson
    siblings: NotRequired[TextsJson]
    probeHook: NotRequired[str]
    minDifference: float
    maxArmCosine: float
    stopEarly: NotRequired[StopEarlyJson]


class EvidenceRulesJson(TypedDict):
    """Which prompts are shown token by token."""

    topPrompts: int
    randomPrompts: int


class TraceRulesJson(TypedDict):
    """Which texts of a steering are followed step by step."""

    openings: int


class ReferenceJson(TypedDict):
    """The name of another object in the same namespace."""

    name: str


class CaptureJson(TypedDict):
    """The spec of a Capture."""

    model: ModelJson
    hook: str
    writeHook: NotRequired[str]
    prompts: PromptSetsJson
    positions: PositionsJson
    maxTokens: int
    splits: NotRequired[SplitsJson]
    calibrationText: NotRequired[TextsJson]


class DecompositionJson(TypedDict):
    """The spec of a Decomposition."""

    captureRef: ReferenceJson
    dictionary: DictionaryJson
    aggregation: Literal["last", "max", "mean"]
    selection: SelectionJson
    calibration: NotRequired[ExpectedJson]


class MappingJson(MappingRulesJson):
    """The spec of a Mapping."""

    coarseRef: ReferenceJson
    fineRef: ReferenceJson
    gate: GateJson


class SplittingJson(SplittingRulesJson, TypedDict):
    """The spec of a Splitting."""

    coarseRef: ReferenceJson
    fineRef: ReferenceJson
    minCosine: float
    minCorrelation: float


class EvidenceJson(EvidenceRulesJson):
    """The spec of an Evidence."""

    captureRef: ReferenceJson
    mappingRef: ReferenceJson
    selection: SelectionJson


class SteeringJson(SteeringRulesJson):
    """The spec of a Steering."""

    captureRef: ReferenceJson
    mappingRef: ReferenceJson
    gatePolicy: Literal["report", "enforce"]
    splits: NotRequired[SplitsJson]


class TraceJson(TraceRulesJson):
    """The spec of a Trace."""

    captureRef: ReferenceJson
    mappingRef: ReferenceJson
    steeringRef: ReferenceJson


class AblationJson(AblationRulesJson, TypedDict):
    """The spec of an Ablation."""

    captureRef: ReferenceJson
    mappingRef: ReferenceJson


class ScoringJson(ScoringRulesJson, TypedDict):
    """The spec of a Scoring."""

    steeringRef: ReferenceJson


class DamageJson(DamageRulesJson, TypedDict):
    """The spec of a Damage."""

    captureRef: ReferenceJson
    mappingRef: ReferenceJson
    steeringRef: ReferenceJson


class DriftJson(DriftRulesJson, TypedDict):
    """The spec of a Drift."""

    captureRef: ReferenceJson
    mappingRef: ReferenceJson
    steeringRef: ReferenceJson


class AskedLatentsJson(TypedDict):
    """Latents by their index, of each dictionary."""

    coarse: list[int]
    fine: list[int]


class SteeredJson(TypedDict):
    """One arm at one strength."""

    arm: str
    strength: float
    maxNewTokens: NotRequired[int]


class QuestionJson(TypedDict):
    """The spec of a Question."""

    captureRef: ReferenceJson
    mappingRef: ReferenceJson
    steeringRef: NotRequired[ReferenceJson]
    text: str
    latents: NotRequired[AskedLatentsJson]
    steered: NotRequired[SteeredJson]


class DictionariesJson(TypedDict):
    """The two resolutions."""

    coarse: DictionaryJson
    fine: DictionaryJson


class CalibrationJson(TypedDict):
    """What both dictionaries must do on a text."""

    text: NotRequired[TextsJson]
    coarse: ExpectedJson
    fine: ExpectedJson


MatrixJson = dict[str, dict[str, JsonObject]]
"""The axes of a sweep: axis, value, then the fields that the value sets, by their paths."""


class ExperimentJson(TypedDict):
    """The spec of an Experiment."""

    model: ModelJson
    hook: str
    writeHook: NotRequired[str]
    prompts: PromptSetsJson
    positions: PositionsJson
    aggregation: Literal["last", "max", "mean"]
    maxTokens: int
    splits: NotRequired[SplitsJson]
    dictionaries: DictionariesJson
    calibration: NotRequired[CalibrationJson]
    selection: SelectionJson
    mapping: MappingRulesJson
    gate: GateJson
    splitting: NotRequired[SplittingRulesJson]
    evidence: NotRequired[EvidenceRulesJson]
    steering: NotRequired[SteeringRulesJson]
    trace: NotRequired[TraceRulesJson]
    ablation: NotRequired[AblationRulesJson]
    scoring: NotRequired[ScoringRulesJson]
    drift: NotRequired[DriftRulesJson]
    damage: NotRequired[DamageRulesJson]
    matrix: NotRequired[MatrixJson]
    holdOver: NotRequired[list[str]]


class ConceptWordsJson(TypedDict):
    """The words of a concept of a family."""

    words: list[str]
    forms: list[str]


class FamilyJson(TypedDict):
    """Templates, and the words of the concepts that they are filled with."""

    templates: list[str]
    siblings: NotRequired[list[str]]
    concepts: dict[str, ConceptWordsJson]


class ConceptJson(TypedDict):
    """What of an experiment belongs to a concept."""

    family: str
    prompts: PromptSetsJson
    lexicon: TextsJson
    siblings: NotRequired[TextsJson]


class StudyJson(TypedDict):
    """The spec of a Study. ``experiment`` is an ExperimentJson without its concept's fields."""

    experiment: JsonObject
    concepts: dict[str, ConceptJson]
    minTestable: int
    families: NotRequired[dict[str, FamilyJson]]
