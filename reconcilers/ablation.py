"""Ablation: what target prompts lose of the concept where an anchor and its children are out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from loopscope.reconcilers.after_mapping import AfterMapping, after_mapping
from loopscope.reconcilers.chat import chat_of
from loopscope.reconcilers.mapping import geometry_of
from loopscope.reconcilers.plan import Answered, Blocked, Desired, Snapshot, Wanted
from loopscope.reconcilers.stage import needed_json, reference_json, side_json
from loopscope.reconcilers.steering import directions_of
from loopscope.specs.ablation import why_not_ablated
from loopscope.specs.actions import Action
from loopscope.specs.payloads.ablation import AblationPayload, AblationWork
from loopscope.specs.payloads.observed import ObservedModel
from loopscope.specs.payloads.steering import SIDES
from loopscope.specs.pipeline import NodeName
from loopscope.specs.spec_json import AblationJson, CaptureJson, ExperimentJson


def desired(snapshot: Snapshot) -> Desired:
    """Return the ablation that the spec asks for, once capture and mapping are Ready."""
    found = after_mapping(snapshot)
    if isinstance(found, Blocked):
        return found
    for side in SIDES:
        architecture = found.mapping.status.inputs[side]["dictionary"].get("architecture")
        moved = "writeHook" in found.capture.spec
        if why := why_not_ablated(write_hook=moved, architecture=architecture):
            return Blocked("InputMismatch", f"{side} of {found.mapping.key}: {why}", terminal=True)
    if "coarse" not in found.mapping.status.summary["arms"]:
        message = "nothing was ablated: no latent passed the selection, so there is no anchor"
        return Answered("NoAnchor", message, {"prompts": 0, "reason": message})
    return _wanted(cast(AblationJson, snapshot.object.spec), found)


def owned(experiment: ExperimentJson, _: NodeName) -> Mapping[str, object]:
    """Return the spec, without its references, of the ablation that an experiment owns."""
    own = experiment["ablation"]
    return own if "lexicon" in own else {**own, "lexicon": experiment["steering"]["lexicon"]}


def _wanted(spec: AblationJson, found: AfterMapping) -> Wanted:
    facts = cast(ObservedModel, found.capture.status.inputs["model"])
    captured, used = cast(CaptureJson, found.capture.spec), found.mapping.status.inputs
    coarse, fine = side_json(used["coarse"]), side_json(used["fine"])
    work: AblationWork = {
        "prompts": spec["prompts"],
        "draws": spec["draws"],
        "seed": spec["seed"],
        "lexicon": list(spec["lexicon"]["texts"]),
        "hook": captured["hook"],
    }
    if (chat := chat_of(captured["prompts"], facts.get("chat_template"))) is not None:
        work["chat"] = chat
    geometry = geometry_of(coarse, fine)
    declared = {
        **work,
        "model": facts["ref"]["identity"],
        "directions": directions_of(found.mapped),
        "geometry": geometry.digest,
        **{
            name: [side["contentDigest"], side["dictionary"]["identity"]]
            for name, side in (("coarse", coarse), ("fine", fine))
        },
    }
    payload: AblationPayload = {
        **work,
        "model": facts["ref"],
        "mapping": reference_json(found.mapped),
        "coarse": coarse,
        "fine": fine,
        "geometry": needed_json(geometry),
    }
    inputs = {
        "capture": used["capture"],
        "mapping": reference_json(found.mapped),
        "coarse": coarse,
        "fine": fine,
        "geometry": needed_json(geometry),
    }
    return Wanted(Action("ablation", declared, payload), inputs, needs=(geometry,))
