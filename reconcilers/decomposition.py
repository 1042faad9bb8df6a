"""Decomposition: a capture seen through one dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from loopscope.reconcilers.capture import work_of
from loopscope.reconcilers.plan import Blocked, Desired, Snapshot, Wanted
from loopscope.reconcilers.references import input_references, object_references
from loopscope.reconcilers.stage import (
    artifact_of,
    last_used,
    ready_reference,
    reference_json,
    resolved_input,
)
from loopscope.specs.actions import Action
from loopscope.specs.chat_words import SEVERAL
from loopscope.specs.contextual import CONTEXTUAL
from loopscope.specs.model_names import another_model, maybe_another_model
from loopscope.specs.payloads.decomposition import (
    DecompositionPayload,
    DecompositionWork,
    TextsAgain,
)
from loopscope.specs.payloads.observed import ObservedDictionary, ObservedModel
from loopscope.specs.payloads.steering import Side
from loopscope.specs.pipeline import NodeName
from loopscope.specs.spec_json import CaptureJson, DecompositionJson, ExperimentJson
from loopscope.specs.splits import Splits, numbered, prompts_of
from loopscope.specs.transcoding import wrong_write_hook
from loopscope.state.records import ArtifactRecord, ObjectRecord


def desired(snapshot: Snapshot) -> Desired:
    """Return the decomposition that the spec asks for, once capture and dictionary are known."""
    (reference,) = input_references(snapshot.object)
    dictionary = resolved_input(snapshot, reference)
    if isinstance(dictionary, Blocked):
        return dictionary
    (capture_key,) = object_references(snapshot.object)
    capture = ready_reference(snapshot, capture_key, last_used(snapshot, "capture"))
    if isinstance(capture, Blocked):
        return capture
    artifact = artifact_of(snapshot, capture)
    if isinstance(artifact, Blocked):
        return artifact
    facts = dictionary.dictionary
    return _mismatch(snapshot.object, capture, artifact, facts) or _wanted(
        snapshot.object, capture, artifact, facts
    )


def owned(experiment: ExperimentJson, name: NodeName) -> Mapping[str, object]:
    """Return the spec, without its references, of one of the two that an experiment owns."""
    side = cast(Side, name)
    spec: dict[str, object] = {
        "dictionary": experiment["dictionaries"][side],
        "aggregation": experiment["aggregation"],
        "selection": experiment["selection"],
    }
    if "calibration" in experiment:
        spec["calibration"] = experiment["calibration"][side]
    return spec


def _wanted(
    record: ObjectRecord, capture: ObjectRecord, artifact: ArtifactRecord, facts: ObservedDictionary
) -> Wanted:
    spec, captured = cast(DecompositionJson, record.spec), cast(CaptureJson, capture.spec)
    prompts = prompts_of(captured["prompts"])
    work: DecompositionWork = {
        "aggregation": spec["aggregation"],
        "splits": Splits.model_validate(captured.get("splits", {})).of_prompts(prompts),
    }
    groups = numbered([prompt.group for prompt in prompts])
    if groups is not None:
        work["groups"] = groups
    if "calibration" in spec:
        work["calibration"] = spec["calibration"]
    declared: dict[str, object] = {
        **work,
        "capture": artifact.content_digest,
        "dictionary": facts["ref"]["identity"],
    }
    again: TextsAgain = {}
    if facts.get("architecture") in CONTEXTUAL:
        model = cast(ObservedModel, capture.status.inputs["model"])
        texts = work_of(captured, model)
        declared["captured"] = {**texts, "model": model["ref"]["identity"]}
        again = {"captured": {**texts, "model": model["ref"]}}
    payload: DecompositionPayload = {
        **work,
        **again,
        "capture": reference_json(artifact),
        "dictionary": facts["ref"],
    }
    inputs = {
        "capture": {"object": capture.key.name, **reference_json(artifact)},
        "dictionary": facts,
    }
    trained_on = facts.get("model_names") or []
    other = maybe_another_model(captured["model"], trained_on)
    transfer = f"trained on {trained_on[0]}, applied to {other}" if other is not None else None
    return Wanted(Action("decomposition", declared, payload), inputs, transfer=transfer)


def _mismatch(
    record: ObjectRecord, capture: ObjectRecord, artifact: ArtifactRecord, facts: ObservedDictionary
) -> Blocked | None:
    spec, captured = cast(DecompositionJson, record.spec), cast(CaptureJson, capture.spec)
    aggregation, positions = spec["aggregation"], captured["positions"]
    if aggregation != "last" and positions not in SEVERAL:
        return Blocked(
            "InputMismatch",
            f"aggregation {aggregation} needs positions: all, but {capture.key} keeps {positions}",
            terminal=True,
        )
    hook, trained_at = captured["hook"], facts.get("hook_name")
    if trained_at not in (None, hook) and spec["dictionary"].get("usableAt") != "any":
        return Blocked(
            "InputMismatch",
            f"the dictionary was trained at {trained_at}, but {capture.key} was taken at {hook}",
            terminal=True,
        )
    any_place = spec["dictionary"].get("usableAt") == "any"
    written = facts.get("write_hook")
    why = wrong_write_hook(written, captured.get("writeHook"), any_place=any_place)
    if why is not None:
        return Blocked("InputMismatch", f"{capture.key}: {why}", terminal=True)
    trained_on = facts.get("model_names") or []
    other = another_model(captured["model"], trained_on)
    if other is not None and spec["dictionary"].get("usableOn") != "any":
        return Blocked(
            "InputMismatch",
            f"the dictionary was trained on {trained_on[0]}, but {capture.key} is of {other}; "
            "choose another one, or write usableOn: any",
            terminal=True,
        )
    d_in, d_model = facts["d_in"], artifact.metrics["d_model"]
    if d_in != d_model:
        return Blocked(
            "InputMismatch",
            f"the dictionary reads vectors of width {d_in}, but {capture.key} holds width "
            f"{d_model}; choose a dictionary trained on this model and hook",
            terminal=True,
        )
    d_out, d_write = facts.get("d_out"), artifact.metrics.get("d_write")
    if written is not None and d_out != d_write:
        return Blocked(
            "InputMismatch",
            f"the transcoder writes vectors of width {d_out}, but {capture.key} holds width "
            f"{d_write} at {captured['writeHook']}; choose one that was trained on this model",
            terminal=True,
        )
    return None
