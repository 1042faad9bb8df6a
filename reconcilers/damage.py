"""Damage: ordinary text, easy questions and other concepts under the arms of a steering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from loopscope.reconcilers.after_mapping import after_mapping
from loopscope.reconcilers.after_steering import (
    NothingSteered,
    after_steering,
    content_of,
    how_it_steers,
    narrowed,
)
from loopscope.reconcilers.plan import Answered, Blocked, Desired, Snapshot, Wanted
from loopscope.reconcilers.stage import reference_json
from loopscope.reconcilers.steering import directions_of
from loopscope.specs.actions import Action
from loopscope.specs.artifacts.steering import ARMS, SAMPLES, SCORES
from loopscope.specs.choices import choices
from loopscope.specs.lexicon import folded, lexicon_pattern
from loopscope.specs.packaged import packaged_texts
from loopscope.specs.payloads.damage import DamagePayload
from loopscope.specs.pipeline import NodeName
from loopscope.specs.spec_json import DamageJson, ExperimentJson, SteeringJson

_TRIED = (SAMPLES.name, SCORES.name, ARMS.name)
ORDINARY = packaged_texts("calibration")
"""Read once, with the code: what a controller decides does not change while it runs."""


def desired(snapshot: Snapshot) -> Desired:
    """Return the damage that the spec asks for, once all that it names is Ready."""
    found = after_mapping(snapshot)
    if isinstance(found, Blocked):
        return found
    steered = after_steering(snapshot, found)
    if isinstance(steered, Blocked):
        return steered
    if isinstance(steered, NothingSteered):
        message = f"there is no arm to be tried: {steered.why}"
        return Answered("NothingSteered", message, {"texts": 0, "items": 0, "reason": message})
    spec = cast(DamageJson, snapshot.object.spec)
    words = cast(SteeringJson, steered.record.spec)["lexicon"]["texts"]
    work = narrowed(steered.work)
    payload: DamagePayload = {
        "texts": _texts(spec, words),
        "choices": choices(words),
        "sides": {name: list(one["texts"]) for name, one in spec.get("sides", {}).items()},
        "work": work,
        "steered": reference_json(steered.made),
    }
    if "maxLoss" in spec:
        payload["maxLoss"] = spec["maxLoss"]
    measured: Mapping[str, object] = payload
    declared = {
        **how_it_steers(work, found),
        **{name: one for name, one in measured.items() if name not in ("work", "steered")},
        "mapping": directions_of(found.mapped),
        "openings": work["openings"],
        "arms": work["arms"],
        "model": work["model"]["identity"],
        "steered": content_of(steered.made, _TRIED),
    }
    return Wanted(Action("damage", declared, payload), steered.inputs(found))


def owned(experiment: ExperimentJson, _: NodeName) -> Mapping[str, object]:
    """Return the spec, without its references, of the damage that an experiment owns."""
    return {**experiment["damage"]}


def _texts(spec: DamageJson, lexicon: Sequence[str]) -> list[str]:
    """Return ordinary text without a word of the lexicon; what a spec names is taken as it is."""
    if "text" in spec:
        return list(spec["text"]["texts"])
    pattern = lexicon_pattern(lexicon)
    return [text for text in ORDINARY if not pattern.search(folded(text))]
