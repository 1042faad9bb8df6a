"""Steering: generation along the directions that a mapping found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from loopscope.reconcilers.after_mapping import AfterMapping, after_mapping
from loopscope.reconcilers.chat import chat_of
from loopscope.reconcilers.plan import Answered, Blocked, Desired, Snapshot, Wanted
from loopscope.reconcilers.stage import reference_json, side_json
from loopscope.specs.actions import Action
from loopscope.specs.artifacts.mapping import DIRECTIONS, DIRECTIONS_VECTORS
from loopscope.specs.chat_words import IN_A_CHAT, needs_chat
from loopscope.specs.contextual import why_not_steered
from loopscope.specs.neutral import packaged_neutral_texts, packaged_placebo
from loopscope.specs.outcomes import asked_of_outcomes
from loopscope.specs.payloads.observed import ObservedModel
from loopscope.specs.payloads.steering import (
    SIDES,
    DeclaredSteering,
    Opening,
    SteeredPlaces,
    SteeringPayload,
    SteeringWork,
)
from loopscope.specs.pipeline import NodeName
from loopscope.specs.rules import SYSTEM_PROMPT_SEPARATOR
from loopscope.specs.spec_json import CaptureJson, ExperimentJson, SteeringJson
from loopscope.specs.splits import Splits, labelled, numbered
from loopscope.specs.transcoding import CLAMP_NEEDS_ONE_PLACE
from loopscope.state.records import ArtifactRecord, ObjectRecord

_RULES = (
    "arms",
    "randomDraws",
    "systemPrompt",
    "strengthUnit",
    "strengths",
    "samplesPerPrompt",
    "maxNewTokens",
    "sampling",
    "minDifference",
    "maxArmCosine",
    "probeHook",
    "stopEarly",
)
_GATE_REASONS = {"NO-GO": "GateNoGo", "INCONCLUSIVE": "GateInconclusive"}


def desired(snapshot: Snapshot) -> Desired:
    """Return the steering that the spec asks for, once capture and mapping are Ready."""
    found = after_mapping(snapshot)
    if isinstance(found, Blocked):
        return found
    capture, mapping = found.capture, found.mapping
    spec = cast(SteeringJson, snapshot.object.spec)
    if "writeHook" in capture.spec and spec.get("method") == "clamp":
        return Blocked("InputMismatch", CLAMP_NEEDS_ONE_PLACE, terminal=True)
    for side in SIDES:
        dictionary = mapping.status.inputs[side]["dictionary"]
        if (why := why_not_steered(dictionary.get("architecture"))) is not None:
            return Blocked("InputMismatch", f"{side} of {mapping.key}: {why}", terminal=True)
    if spec.get("positions") in IN_A_CHAT and "chat" not in capture.spec["prompts"]:
        return Blocked("InputMismatch", needs_chat(str(spec.get("positions"))), terminal=True)
    return _answered(spec, mapping) or wanted(spec, found)


def owned(experiment: ExperimentJson, _: NodeName) -> Mapping[str, object]:
    """Return the spec, without its references, of the steering that an experiment owns."""
    splits = {"splits": experiment["splits"]} if "splits" in experiment else {}
    return {**experiment["steering"], "gatePolicy": experiment["gate"]["policy"], **splits}


def _answered(spec: SteeringJson, mapping: ObjectRecord) -> Answered | None:
    """Return the answer that needs no generation: the gate forbids it, or no direction exists."""
    summary = mapping.status.summary
    gate = summary["verdict"]
    if spec["gatePolicy"] == "enforce" and gate != "GO":
        message = f"steering did not run: the gate says {gate} and its policy is enforce"
        return Answered(_GATE_REASONS[gate], message, {"verdict": "NotTestable", "reason": message})
    if "coarse" not in summary["arms"]:
        message = "steering did not run: no latent passed the selection, so there is no direction"
        return Answered("NoAnchor", message, {"verdict": "NotTestable", "reason": message})
    return None


def wanted(spec: SteeringJson, found: AfterMapping) -> Wanted:
    """Return the generation that a spec asks for beside this capture and mapping."""
    capture, capture_artifact = found.capture, found.captured
    mapping, mapping_artifact = found.mapping, found.mapped
    facts = cast(ObservedModel, capture.status.inputs["model"])
    model = facts["ref"]
    used = mapping.status.inputs
    coarse, fine = side_json(used["coarse"]), side_json(used["fine"])
    work: SteeringWork = {
        **_declared_rules(spec),
        "openings": scored_openings(spec),
        "neutralText": _neutral_texts(spec),
        **asked_of_outcomes(spec),
        **_places(cast(CaptureJson, capture.spec)),
    }
    sets = cast(CaptureJson, capture.spec)["prompts"]
    if (chat := chat_of(sets, facts.get("chat_template"))) is not None:
        work["chat"] = chat
        if "systemPrompt" in work:  # it stood between BOS and the template once
            work["systemPromptAs"] = "systemMessage"
    declared: dict[str, object] = {
        **work,
        "model": model["identity"],
        "directions": directions_of(mapping_artifact),
        "capture": capture_artifact.content_digest,
        "sides": {
            name: [side["contentDigest"], side["dictionary"]["identity"]]
            for name, side in (("coarse", coarse), ("fine", fine))
        },
    }
    payload: SteeringPayload = {
        **work,
        "model": model,
        "mapping": reference_json(mapping_artifact),
        "capture": reference_json(capture_artifact),
        "coarse": coarse,
        "fine": fine,
    }
    summary = mapping.status.summary
    inputs = {
        "capture": {"object": capture.key.name, **reference_json(capture_artifact)},
        "mapping": {
            **reference_json(mapping_artifact),
            "gate": summary.get("verdict"),
            "anchor": summary.get("anchor"),
            "children": summary.get("children"),
            "rank": summary.get("anchor_rank"),
        },
    }
    return Wanted(Action("steering", declared, payload), inputs)


def directions_of(mapped: ArtifactRecord) -> list[str]:
    """Return the content of what a mapping says to steer along: no other part of it matters."""
    return [mapped.files[name].sha256 for name in (DIRECTIONS.name, DIRECTIONS_VECTORS.name)]


def _places(captured: CaptureJson) -> SteeredPlaces:
    """Return where steering acts, and where latents are read if that is another place."""
    if "writeHook" in captured:
        return {"hook": captured["writeHook"], "readHook": captured["hook"]}
    return {"hook": captured["hook"]}


def _declared_rules(spec: SteeringJson) -> DeclaredSteering:
    given: Mapping[str, object] = spec
    rules = cast(DeclaredSteering, {name: given[name] for name in _RULES if name in given})
    if spec.get("method") == "clamp":  # add is left out: what was made by adding stays valid
        rules["method"] = "clamp"
    if (positions := spec.get("positions", "all")) != "all":  # likewise
        rules["positions"] = positions
    if "systemPrompt" in spec:
        separator = spec.get("systemPromptSeparator", SYSTEM_PROMPT_SEPARATOR)
        rules["systemPromptSeparator"] = separator
        placebo = spec.get("placeboPrompt")
        words = spec["lexicon"]["texts"]
        rules["placeboPrompt"] = placebo or packaged_placebo(spec["systemPrompt"], words)
    return rules


def _neutral_texts(spec: SteeringJson) -> list[str]:
    if "neutralText" in spec:
        return list(spec["neutralText"]["texts"])
    return list(packaged_neutral_texts(spec["lexicon"]["texts"]))


def scored_openings(spec: SteeringJson) -> list[Opening]:
    """Return the openings of the split *test*, numbered as in the spec, with their groups."""
    openings = labelled(spec["prompts"])
    splits = Splits.model_validate(spec.get("splits", {})).of_openings(openings)
    groups = numbered([label for _, label in openings])
    scored: list[Opening] = []
    for number, ((text, _), split) in enumerate(zip(openings, splits, strict=True)):
        if split == "test":
            opening: Opening = {"id": f"opening-{number:04d}", "text": text}
            if groups is not None:
                opening["group"] = groups[number]
            scored.append(opening)
    return scored
