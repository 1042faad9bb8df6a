"""Question: a text asked of the model, token by token or as it goes on under an arm."""

from __future__ import annotations

from typing import cast

from loopscope.reconcilers.after_mapping import AfterMapping, after_mapping
from loopscope.reconcilers.after_steering import (
    AfterSteering,
    NothingSteered,
    after_steering,
    how_it_steers,
    narrowed,
)
from loopscope.reconcilers.chat import chat_of
from loopscope.reconcilers.plan import Blocked, Desired, Snapshot, Wanted
from loopscope.reconcilers.stage import (
    reference_json,
    side_json,
)
from loopscope.specs.actions import Action
from loopscope.specs.payloads.observed import ObservedModel
from loopscope.specs.payloads.question import AskedDictionaries, QuestionPayload, SteeredWork
from loopscope.specs.payloads.steering import SIDES, Opening, SteeringPayload
from loopscope.specs.spec_json import (
    AskedLatentsJson,
    CaptureJson,
    QuestionJson,
    SteeredJson,
)

OPENING = "question"
"""The id of an opening that is none of the steering's: its random numbers are drawn by it."""


def desired(snapshot: Snapshot) -> Desired:
    """Return the answer that the spec asks for, once all that it names is Ready."""
    found = after_mapping(snapshot)
    if isinstance(found, Blocked):
        return found
    spec = cast(QuestionJson, snapshot.object.spec)
    if "steered" not in spec:
        return _activations(spec, spec["latents"], found)
    steered = after_steering(snapshot, found)
    if isinstance(steered, Blocked):
        return steered
    if isinstance(steered, NothingSteered):
        message = f"{steered.record.key} steered nothing: {steered.why}"
        return Blocked("InputMismatch", message, terminal=True)
    return _steered(spec, spec["steered"], found, steered)


def _activations(spec: QuestionJson, latents: AskedLatentsJson, found: AfterMapping) -> Wanted:
    dictionaries = _dictionaries(found)
    payload: QuestionPayload = {
        **_text(spec, found),
        "latents": latents,
        "dictionaries": dictionaries,
    }
    declared: dict[str, object] = {
        **{name: payload[name] for name in ("hook", "text", "chat") if name in payload},
        "latents": latents,
        "model": payload["model"]["identity"],
        "dictionaries": [dictionaries[side]["identity"] for side in SIDES],
    }
    return Wanted(Action("question", declared, payload), _inputs(found))


def _steered(
    spec: QuestionJson,
    asked: SteeredJson,
    found: AfterMapping,
    steered: AfterSteering,
) -> Wanted:
    whole, made = steered.work, steered.made
    known = {opening["text"]: opening["id"] for opening in whole["openings"]}
    opening: Opening = {"id": known.get(spec["text"], OPENING), "text": spec["text"]}
    work = work_of_one(whole, opening, asked)
    asks: SteeredWork = {"asked": asked, "work": work, "answered": reference_json(made)}
    payload: QuestionPayload = {**_text(spec, found), "steered": asks}
    declared = {
        **how_it_steers(work, found),
        "opening": opening,
        "asked": [asked["arm"], asked["strength"]],
        "model": payload["model"]["identity"],
        "steering": made.content_digest,
    }
    inputs = {
        **_inputs(found),
        "steering": {"object": steered.record.key.name, **reference_json(made)},
    }
    return Wanted(Action("question", declared, payload), inputs)


def work_of_one(whole: SteeringPayload, opening: Opening, asked: SteeredJson) -> SteeringPayload:
    """Return as much of a steering's payload as one opening under one arm and unsteered needs."""
    return narrowed(
        whole,
        arms=["none", *_arms(asked["arm"])],
        openings=[opening],
        strengths=[asked["strength"]],
        samplesPerPrompt=1,
        maxNewTokens=asked.get("maxNewTokens", whole["maxNewTokens"]),
    )


def _arms(arm: str) -> list[str]:
    """Return what a steering's spec calls an arm; those of words are asked for by themselves."""
    if arm.startswith("random-"):
        return ["random"]
    return [] if arm in ("none", "systemPrompt", "placeboPrompt") else [arm]


def _text(spec: QuestionJson, found: AfterMapping) -> QuestionPayload:
    facts = cast(ObservedModel, found.capture.status.inputs["model"])
    captured = cast(CaptureJson, found.capture.spec)
    payload: QuestionPayload = {
        "model": facts["ref"],
        "hook": captured["hook"],
        "text": spec["text"],
    }
    if (chat := chat_of(captured["prompts"], facts.get("chat_template"))) is not None:
        payload["chat"] = chat
    return payload


def _dictionaries(found: AfterMapping) -> AskedDictionaries:
    used = found.mapping.status.inputs
    return {
        "coarse": side_json(used["coarse"])["dictionary"],
        "fine": side_json(used["fine"])["dictionary"],
    }


def _inputs(found: AfterMapping) -> dict[str, object]:
    return {
        "capture": found.mapping.status.inputs["capture"],
        "mapping": reference_json(found.mapped),
    }
