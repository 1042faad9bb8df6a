"""Capture: the residual stream of two prompt sets at one hook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from loopscope.reconcilers.chat import chat_of
from loopscope.reconcilers.plan import Blocked, Desired, Snapshot, Wanted
from loopscope.reconcilers.references import input_references
from loopscope.reconcilers.stage import resolved_input
from loopscope.specs.actions import Action
from loopscope.specs.hooks import Hook
from loopscope.specs.packaged import packaged_texts
from loopscope.specs.payloads.capture import CapturePayload, CaptureWork
from loopscope.specs.payloads.observed import ObservedModel
from loopscope.specs.pipeline import NodeName
from loopscope.specs.spec_json import CaptureJson, ExperimentJson
from loopscope.specs.splits import prompts_of


def desired(snapshot: Snapshot) -> Desired:
    """Return the capture that the spec asks for, once the model is resolved."""
    (reference,) = input_references(snapshot.object)
    model = resolved_input(snapshot, reference)
    if isinstance(model, Blocked):
        return model
    facts = model.model
    spec = cast(CaptureJson, snapshot.object.spec)
    layers, parallel = facts.get("n_layers"), facts.get("parallel", False)
    for hook in (spec["hook"], *([spec["writeHook"]] if "writeHook" in spec else [])):
        why = Hook.parse(hook).missing_from(spec["model"]["name"], layers, parallel=parallel)
        if why is not None:
            return Blocked("InputMismatch", why, terminal=True)
    work = work_of(spec, facts)
    declared = {**work, "model": facts["ref"]["identity"]}
    payload: CapturePayload = {**work, "model": facts["ref"]}
    return Wanted(Action("capture", declared, payload), {"model": facts})


def work_of(spec: CaptureJson, facts: ObservedModel) -> CaptureWork:
    """Return what a capture of this model is asked for."""
    work: CaptureWork = {
        "hook": spec["hook"],
        "prompts": [
            {"id": prompt.id, "text": prompt.text, "condition": prompt.condition}
            for prompt in prompts_of(spec["prompts"])
        ],
        "positions": spec["positions"],
        "maxTokens": spec["maxTokens"],
        "calibrationText": _calibration_text(spec),
    }
    if "writeHook" in spec:
        work["writeHook"] = spec["writeHook"]
    if (chat := chat_of(spec["prompts"], facts.get("chat_template"))) is not None:
        work["chat"] = chat
    return work


def owned(experiment: ExperimentJson, _: NodeName) -> Mapping[str, object]:
    """Return the spec of the capture that an experiment owns."""
    fields = ("model", "hook", "writeHook", "prompts", "positions", "maxTokens", "splits")
    spec: dict[str, object] = {name: given for name, given in experiment.items() if name in fields}
    calibration = experiment.get("calibration")
    if calibration is not None and "text" in calibration:
        spec["calibrationText"] = calibration["text"]
    return spec


def _calibration_text(spec: CaptureJson) -> list[str]:
    """Return the texts that the spec names, else those that come with Loopscope."""
    own = spec.get("calibrationText")
    return list(own["texts"] if own is not None else packaged_texts("calibration"))
