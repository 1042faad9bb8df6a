"""Forecasts of stages that never ran, from shapes and the rates of the machine.

Specs, headers and configs tell the shapes; nothing is opened but rows of the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

from loopscope.reconcilers.references import InputReference, input_references
from loopscope.reconcilers.steering import scored_openings
from loopscope.specs.actions import Action
from loopscope.specs.contextual import CONTEXTUAL
from loopscope.specs.hooks import Hook
from loopscope.specs.keys import Key
from loopscope.specs.neutral import packaged_neutral_texts
from loopscope.specs.packaged import packaged_texts
from loopscope.specs.payloads.geometry import GeometryPayload
from loopscope.specs.payloads.observed import ObservedDictionary, ObservedModel
from loopscope.specs.payloads.references import DictionaryReference
from loopscope.specs.spec_json import (
    CaptureJson,
    DecompositionJson,
    MappingJson,
    ReferenceJson,
    SplittingJson,
    SteeringJson,
)
from loopscope.specs.splits import prompts_of
from loopscope.state.db import inputs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.machine_rates import MachineRates
from loopscope.state.records import InputRecord, ObjectRecord
from loopscope.views.work import (
    CHARACTERS_PER_TOKEN,
    DictionaryShape,
    ModelShape,
    Steered,
    Texts,
    Work,
    capture_work,
    decomposition_work,
    geometry_work,
    mapping_work,
    splitting_work,
    steering_work,
)

BY_SHAPES = "by shapes and this machine's rates"
SIZES_ONLY = "sizes by shapes, no probe of this machine yet"
IN_FEWER_BITS = "sizes by shapes; how fast a model in fewer bits is was measured nowhere"
PROBE_PROMPTS_MAX = 200
BUDGETED = ("nextTokenKl", "fluencyLoss")
"""Units of strength that are measured: which norm brings them is found by passes of the model."""
_EVERY = ("all", "assistant")


class _NotKnown(Exception):
    """A shape is not known; the message says which."""


class Known(Protocol):
    """Where objects and observed inputs are looked up."""

    def get(self, key: Key) -> ObjectRecord | None:
        """Return an object."""

    def input(self, reference: InputReference) -> InputRecord | None:
        """Return what a reference resolved to."""


@dataclass(frozen=True)
class Stored:
    """Objects and inputs as they are stored."""

    connection: Connection

    def get(self, key: Key) -> ObjectRecord | None:
        """Return an object."""
        return objects.get(self.connection, key)

    def input(self, reference: InputReference) -> InputRecord | None:
        """Return what a reference resolved to."""
        return inputs.get(self.connection, reference.digest)


@dataclass(frozen=True)
class Forecast:
    """Seconds, bytes of artifact and bytes of memory of its own that a stage will take.

    None is what is not known; ``basis`` says where the numbers come from, or what is missing.
    """

    seconds: float | None = None
    bytes: int | None = None
    memory: int | None = None
    basis: str = ""


@dataclass(frozen=True)
class Forecaster:
    """Foresees stages from what is known; without ``rates`` only their sizes."""

    known: Known
    rates: MachineRates | None

    def of(self, record: ObjectRecord) -> Forecast:
        """Return what the stage of an object takes."""
        found = self._forecast(lambda: _work_of(record, self.known))
        if found.seconds is None or not _runs_in_fewer_bits(record, self.known):
            return found
        return replace(found, seconds=None, basis=IN_FEWER_BITS)

    def of_shared(self, action: Action) -> Forecast:
        """Return what an artifact takes that belongs to no object."""
        if action.stage != "geometry":
            return Forecast(basis=f"no shapes of {action.stage} are known")
        pair = cast(GeometryPayload, action.payload)
        return self._forecast(
            lambda: geometry_work(*(_shape(ref, ref) for ref in (pair["coarse"], pair["fine"])))
        )

    def _forecast(self, work_of: Callable[[], Work]) -> Forecast:
        try:
            work = work_of()
        except _NotKnown as why:
            return Forecast(basis=str(why))
        except (KeyError, ValueError):
            return Forecast(basis="what is recorded of it is of an earlier version")
        sizes = Forecast(None, int(work.disk), int(work.anonymous), SIZES_ONLY)
        if self.rates is None:
            return sizes
        return replace(sizes, seconds=round(work.seconds(self.rates), 1), basis=BY_SHAPES)


def _work_of(record: ObjectRecord, known: Known) -> Work:
    match record.key.kind:
        case "Capture":
            return _capture(record, known)
        case "Decomposition":
            spec = cast(DecompositionJson, record.spec)
            captured = cast(CaptureJson, _named(record, spec["captureRef"], "Capture", known).spec)
            _check_row_by_row(record, known)
            return decomposition_work(
                _dictionary(record, known),
                _prompts(captured),
                _kept(captured),
                _calibration(captured).tokens,
            )
        case "Mapping":
            coarse, fine = _sides(record, known)
            return mapping_work(coarse, fine, _prompts(_captured(record, known)).count)
        case "Splitting":
            coarse, fine = _sides(record, known)
            rules = cast(SplittingJson, record.spec)
            rounds = rules["draws"] + rules["resamples"]
            return splitting_work(coarse, fine, _prompts(_captured(record, known)).count, rounds)
        case "Evidence":
            raise _NotKnown(
                "which latents it shows is known after the mapping; "
                "it runs some of the capture's prompts again"
            )
        case "Ablation":
            raise _NotKnown("it reads some target prompts with latents taken out of the stream")
        case "Trace":
            raise _NotKnown("it reads some of the generated texts once more, up to the hook")
        case "Drift":
            raise _NotKnown("it reads neutral text behind anchors, and samples at temperatures")
        case "Question":
            raise _NotKnown("it reads or goes on with one text, once the model is loaded")
        case "Steering":
            return _steering(record, known)
    raise _NotKnown(f"no shapes of {record.key.kind} are known")


def _capture(record: ObjectRecord, known: Known) -> Work:
    spec = cast(CaptureJson, record.spec)
    hooks = [spec["hook"], *([spec["writeHook"]] if "writeHook" in spec else [])]
    blocks = max(_blocks(hook) for hook in hooks)
    model, text = _model(record, known), _calibration(spec)
    return capture_work(model, blocks, _prompts(spec), _kept(spec), text, len(hooks))


def _steering(record: ObjectRecord, known: Known) -> Work:
    spec = cast(SteeringJson, record.spec)
    capture = _named(record, spec["captureRef"], "Capture", known)
    captured, model = cast(CaptureJson, capture.spec), _model(capture, known)
    vectors = [arm for arm in spec["arms"] if arm not in ("none", "random")]
    draws = spec["randomDraws"] if "random" in spec["arms"] else 0
    searched = (len(vectors) + draws) * len(spec["strengths"])
    words = 2 if "systemPrompt" in spec else 0  # its placebo is generated, too
    opened = scored_openings(spec)
    neutral = spec["neutralText"]["texts"] if "neutralText" in spec else None
    kept = neutral or list(packaged_neutral_texts(spec["lexicon"]["texts"]))
    hook = captured.get("writeHook", captured["hook"])
    prompts, probe = _prompts(captured), spec.get("probeHook")
    share = min(1.0, PROBE_PROMPTS_MAX / max(1, prompts.count))
    return steering_work(
        model,
        Steered(
            cells=searched + words + ("none" in spec["arms"]),
            searched=searched if spec["strengthUnit"] in BUDGETED else 0,
            openings=_texts([one["text"] for one in opened]),
            samples=spec["samplesPerPrompt"],
            new_tokens=spec["maxNewTokens"],
            neutral=_texts(kept),
            blocks_above=model.n_layers - _blocks(hook),
            probe_products=prompts.tokens * share * (_blocks(probe) if probe else model.n_layers),
        ),
    )


def _sides(record: ObjectRecord, known: Known) -> Sequence[DictionaryShape]:
    return [_dictionary(side, known) for side in _decompositions(record, known)]


def _captured(record: ObjectRecord, known: Known) -> CaptureJson:
    """Return the spec of the capture that both decompositions of a pair read."""
    (side, _) = _decompositions(record, known)
    where = cast(DecompositionJson, side.spec)["captureRef"]
    return cast(CaptureJson, _named(side, where, "Capture", known).spec)


def _decompositions(record: ObjectRecord, known: Known) -> Sequence[ObjectRecord]:
    spec = cast(MappingJson, record.spec)
    pair = (spec["coarseRef"], spec["fineRef"])
    return [_named(record, one, "Decomposition", known) for one in pair]


def _named(record: ObjectRecord, name: ReferenceJson, kind: str, known: Known) -> ObjectRecord:
    key = Key(kind, record.key.namespace, name["name"])
    found = known.get(key)
    if found is None:
        raise _NotKnown(f"{key} does not exist")
    return found


def _model(record: ObjectRecord, known: Known) -> ModelShape:
    facts = cast("ObservedModel | None", _facts(record, known))
    if facts is None:
        raise _NotKnown("the model is not looked up yet")
    layers, block = facts.get("n_layers"), facts.get("block_weights")
    words = facts.get("vocabulary")
    if layers is None or block is None or words is None:
        raise _NotKnown("its header or config does not tell the model's widths")
    return ModelShape(facts["d_model"], layers, block, words)


def _runs_in_fewer_bits(record: ObjectRecord, known: Known) -> bool:
    """Whether a stage runs a model whose weights are rounded while they are loaded."""
    match record.key.kind:
        case "Capture":
            capture = record
        case "Steering":
            spec = cast(SteeringJson, record.spec)
            capture = _named(record, spec["captureRef"], "Capture", known)
        case _:
            return False
    facts = cast("ObservedModel | None", _facts(capture, known))
    return facts is not None and "quantised" in facts["ref"]


def _check_row_by_row(record: ObjectRecord, known: Known) -> None:
    """Raise where a dictionary reads whole texts, which is other work than rows."""
    facts = cast("ObservedDictionary | None", _facts(record, known))
    if facts is not None and facts.get("architecture") in CONTEXTUAL:
        raise _NotKnown("its dictionary reads whole texts; how long that takes is not known")


def _dictionary(record: ObjectRecord, known: Known) -> DictionaryShape:
    facts = cast("ObservedDictionary | None", _facts(record, known))
    if facts is None:
        raise _NotKnown("the dictionary is not looked up yet")
    return _shape(facts, facts["ref"])


def _facts(record: ObjectRecord, known: Known) -> object:
    (reference,) = input_references(record)
    found = known.input(reference)
    return found.facts if found is not None else None


def _shape(
    facts: ObservedDictionary | DictionaryReference, ref: DictionaryReference
) -> DictionaryShape:
    shape = DictionaryShape(facts["d_in"], facts["d_sae"])
    active = ref.get("reading", {}).get("k")
    return replace(shape, active=active) if active is not None else shape


def _prompts(spec: CaptureJson) -> Texts:
    return _texts([prompt.text for prompt in prompts_of(spec["prompts"])])


def _kept(spec: CaptureJson) -> float:
    prompts = _prompts(spec)
    return prompts.tokens if spec["positions"] in _EVERY else float(prompts.count)


def _calibration(spec: CaptureJson) -> Texts:
    own = spec.get("calibrationText")
    return _texts(own["texts"] if own is not None else packaged_texts("calibration"))


def _texts(texts: Iterable[str]) -> Texts:
    """Return texts with their tokens, a text of whatever length having one."""
    lengths = [max(1.0, len(text) / CHARACTERS_PER_TOKEN) for text in texts]
    return Texts(len(lengths), sum(lengths))


def _blocks(hook: str) -> int:
    return Hook.parse(hook).block + 1
