"""Scoring: further outcomes of the texts of a steering, each measured once for all who ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from loopscope.reconcilers.after_steering import content_of, openings_steered
from loopscope.reconcilers.plan import Answered, Blocked, Desired, Snapshot, Wanted
from loopscope.reconcilers.references import object_references
from loopscope.reconcilers.stage import (
    artifact_of,
    last_used,
    needed_json,
    ready_reference,
    reference_json,
)
from loopscope.specs.actions import Action
from loopscope.specs.artifacts.steering import (
    NEUTRAL_TEXT,
    SAMPLES,
    SCORES,
    VERDICT,
)
from loopscope.specs.json_values import JsonObject
from loopscope.specs.outcomes import OF_TEXTS, asked_of_texts, revision_field
from loopscope.specs.payloads.scores import ScoresPayload
from loopscope.specs.payloads.scoring import Looked, ScoringPayload
from loopscope.specs.payloads.steering import Opening
from loopscope.specs.pipeline import NodeName
from loopscope.specs.ratings import read_ratings
from loopscope.specs.spec_json import ExperimentJson, ScoringJson, SteeringJson
from loopscope.specs.stopping import turns_of
from loopscope.state.records import ArtifactRecord

_COMPARED = (SAMPLES.name, SCORES.name, NEUTRAL_TEXT.name, VERDICT.name)
"""What a scoring reads of a steering."""


def desired(snapshot: Snapshot) -> Desired:
    """Return the scoring that the spec asks for, once its steering is Ready."""
    (key,) = object_references(snapshot.object)
    record = ready_reference(snapshot, key, last_used(snapshot, "steering"))
    if isinstance(record, Blocked):
        return record
    if record.status.artifact is None:
        why = str(record.status.summary.get("reason", "it did not run"))
        message = f"there is no text to be scored: {why}"
        return Answered(
            "NothingSteered", message, {"verdict": "NotTestable", "reason": message, "n": 0}
        )
    made = artifact_of(snapshot, record)
    if isinstance(made, Blocked):
        return made
    spec = cast(ScoringJson, snapshot.object.spec)
    if (foreign := _foreign_ratings(spec, made)) is not None:
        return Blocked("InputMismatch", foreign, terminal=True)
    steering = cast(SteeringJson, record.spec)
    openings = openings_steered(record)
    looked: Looked = {}
    if (rule := steering.get("stopEarly")) is not None:
        looked = {"turns": turns_of(openings, rule, steering["sampling"]["seed"])}
    needs = {name: _scores(name, spec, openings, made) for name in asked_of_texts(spec)}
    payload: ScoringPayload = {
        "primary": spec["primary"],
        "openings": openings,
        "minDifference": steering["minDifference"],
        "maxArmCosine": steering["maxArmCosine"],
        "scores": {name: needed_json(action) for name, action in needs.items()},
        **looked,
        "steered": reference_json(made),
    }
    declared = {
        "primary": spec["primary"],
        "openings": openings,
        "minDifference": steering["minDifference"],
        "maxArmCosine": steering["maxArmCosine"],
        "scores": {name: action.digest for name, action in needs.items()},
        **looked,
        "steered": content_of(made, _COMPARED),
    }
    inputs = {"steering": {"object": record.key.name, **reference_json(made)}}
    return Wanted(Action("scoring", declared, payload), inputs, tuple(needs.values()))


def owned(experiment: ExperimentJson, _: NodeName) -> Mapping[str, object]:
    """Return the spec, without its reference, of the scoring that an experiment owns."""
    return {**experiment["scoring"]}


def _scores(
    name: str, spec: ScoringJson, openings: Sequence[Opening], made: ArtifactRecord
) -> Action:
    """Return the work of one outcome. What it is asked beside the texts alone enters the digest."""
    outcome = OF_TEXTS[name]
    texts = [{"id": one["id"], "text": one["text"]} for one in openings]
    payload: ScoresPayload = {
        "outcome": name,
        "asked": cast(JsonObject, outcome.asked(spec)),
        "beside": cast(JsonObject, outcome.beside(spec)),
        "openings": cast(list[Opening], texts),
        "steered": reference_json(made),
    }
    declared: dict[str, object] = {
        "outcome": name,
        "asked": payload["asked"],
        "openings": texts,
        "texts": content_of(made, (SAMPLES.name,)),
    }
    if outcome.revision > 1:
        declared[revision_field(name)] = outcome.revision
    return Action("scores", declared, payload)


def _foreign_ratings(spec: ScoringJson, made: ArtifactRecord) -> str | None:
    """Return why ratings are not of these texts; None where they are."""
    if "ratings" not in spec:
        return None
    for name, text in zip(spec["ratings"]["files"], spec["ratings"]["sets"], strict=True):
        rated = read_ratings(text).steering
        if rated != made.content_digest:
            return (
                f"{name} rates texts of the steering {rated[:12]}, and here are those of "
                f"{made.content_digest[:12]}; rate the report of this run"
            )
    return None
