"""Evidence: what the latents of a mapping fire on, token by token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from loopscope.reconcilers.after_mapping import after_mapping
from loopscope.reconcilers.chat import chat_of
from loopscope.reconcilers.mapping import geometry_of
from loopscope.reconcilers.plan import Blocked, Desired, Snapshot, Wanted
from loopscope.reconcilers.stage import needed_json, reference_json, side_json
from loopscope.specs.actions import Action
from loopscope.specs.payloads.evidence import EvidencePayload, EvidenceWork
from loopscope.specs.payloads.observed import ObservedModel
from loopscope.specs.pipeline import NodeName
from loopscope.specs.spec_json import CaptureJson, EvidenceJson, ExperimentJson
from loopscope.state.records import ArtifactRecord, ObjectRecord


def desired(snapshot: Snapshot) -> Desired:
    """Return the evidence that the spec asks for, once capture and mapping are Ready."""
    found = after_mapping(snapshot)
    if isinstance(found, Blocked):
        return found
    spec = cast(EvidenceJson, snapshot.object.spec)
    return _wanted(spec, found.capture, found.mapping, found.mapped)


def owned(experiment: ExperimentJson, _: NodeName) -> Mapping[str, object]:
    """Return the spec, without its references, of the evidence that an experiment owns."""
    return {**experiment["evidence"], "selection": experiment["selection"]}


def _wanted(
    spec: EvidenceJson, capture: ObjectRecord, mapping: ObjectRecord, mapped: ArtifactRecord
) -> Wanted:
    facts = cast(ObservedModel, capture.status.inputs["model"])
    captured, used = cast(CaptureJson, capture.spec), mapping.status.inputs
    coarse, fine = side_json(used["coarse"]), side_json(used["fine"])
    work: EvidenceWork = {
        "topPrompts": spec["topPrompts"],
        "randomPrompts": spec["randomPrompts"],
        "selection": spec["selection"],
        "hook": captured["hook"],
        "positions": captured["positions"],
    }
    if "writeHook" in captured:
        work["writeHook"] = captured["writeHook"]
    if (chat := chat_of(captured["prompts"], facts.get("chat_template"))) is not None:
        work["chat"] = chat
    geometry = geometry_of(coarse, fine)
    declared = {
        **work,
        "model": facts["ref"]["identity"],
        "mapping": mapped.content_digest,
        "geometry": geometry.digest,
        **{
            name: [side["contentDigest"], side["dictionary"]["identity"]]
            for name, side in (("coarse", coarse), ("fine", fine))
        },
    }
    payload: EvidencePayload = {
        **work,
        "model": facts["ref"],
        "mapping": reference_json(mapped),
        "coarse": coarse,
        "fine": fine,
        "geometry": needed_json(geometry),
    }
    inputs = {
        "capture": used["capture"],
        "mapping": reference_json(mapped),
        "coarse": coarse,
        "fine": fine,
        "geometry": needed_json(geometry),
    }
    return Wanted(Action("evidence", declared, payload), inputs, needs=(geometry,))
