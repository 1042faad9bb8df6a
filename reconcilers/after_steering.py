"""The steering beneath traces, drifts, damages and questions: one on the same mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from loopscope.reconcilers import steering
from loopscope.reconcilers.after_mapping import AfterMapping
from loopscope.reconcilers.plan import Blocked, Snapshot
from loopscope.reconcilers.references import object_references
from loopscope.reconcilers.stage import (
    artifact_of,
    last_used,
    ready_reference,
    reference_json,
)
from loopscope.specs.payloads.steering import SIDES, Opening, SteeringPayload
from loopscope.specs.spec_json import SteeringJson
from loopscope.specs.stopping import steered_openings
from loopscope.state.records import ArtifactRecord, ObjectRecord

NOTHING_SCORED: dict[str, list[str]] = {"neutralText": [], "lexicon": [], "siblings": []}
"""In place of what scores generated texts, where they are read and not scored."""
_SCORING = ("groups", "probeHook")
_STEERS = (
    "hook", "readHook", "chat", "sampling", "maxNewTokens", "method", "positions", "systemPrompt",
    "systemPromptSeparator", "systemPromptAs", "placeboPrompt", "strengthUnit", "randomDraws",
)  # fmt: skip


@dataclass(frozen=True)
class AfterSteering:
    """A steering that is Ready, what it made, and the payload of its work."""

    record: ObjectRecord
    made: ArtifactRecord
    work: SteeringPayload

    def inputs(self, found: AfterMapping) -> dict[str, object]:
        """Return what the status shows of whatever is made from a steering's arms and texts."""
        return {
            "capture": found.mapping.status.inputs["capture"],
            "mapping": reference_json(found.mapped),
            "coarse": self.work["coarse"],
            "fine": self.work["fine"],
            "steering": {"object": self.record.key.name, **reference_json(self.made)},
        }


@dataclass(frozen=True)
class NothingSteered:
    """A steering that is Ready without having run, and why it did not."""

    record: ObjectRecord

    @property
    def why(self) -> str:
        """Why nothing was steered."""
        return str(self.record.status.summary.get("reason", "it did not run"))


def after_steering(
    snapshot: Snapshot, found: AfterMapping
) -> AfterSteering | NothingSteered | Blocked:
    """Return the steering that the object refers to, or why it must wait or cannot go on."""
    (key,) = (key for key in object_references(snapshot.object) if key.kind == "Steering")
    record = ready_reference(snapshot, key, last_used(snapshot, "steering"))
    if isinstance(record, Blocked):
        return record
    for field in ("captureRef", "mappingRef"):
        if record.spec[field] != snapshot.object.spec[field]:
            message = f"{field} is not that of {key}: {record.spec[field]['name']}"
            return Blocked("InputMismatch", message, terminal=True)
    if record.status.artifact is None:
        return NothingSteered(record)
    made = artifact_of(snapshot, record)
    if isinstance(made, Blocked):
        return made
    work = steering.wanted(cast(SteeringJson, record.spec), found).action.payload
    whole = cast(SteeringPayload, work)
    return AfterSteering(record, made, {**whole, "openings": openings_steered(record)})


def openings_steered(record: ObjectRecord) -> list[Opening]:
    """Return the scored openings of a steering that ran: not those that it stopped before."""
    spec = cast(SteeringJson, record.spec)
    openings, rule = steering.scored_openings(spec), spec.get("stopEarly")
    n = int(record.status.summary["n"]) if rule is not None else len(openings)
    return steered_openings(openings, rule, spec["sampling"]["seed"], n)


def content_of(made: ArtifactRecord, names: Sequence[str]) -> list[str | None]:
    """Return the content of some files; None for one that an earlier version did not write."""
    return [made.files[name].sha256 if name in made.files else None for name in names]


def narrowed(work: SteeringPayload, **changes: object) -> SteeringPayload:
    """Return the work without what scores texts, with these fields in place of its own."""
    kept: Mapping[str, object] = {name: one for name, one in work.items() if name not in _SCORING}
    return cast(SteeringPayload, {**kept, **NOTHING_SCORED, **changes})


def how_it_steers(work: SteeringPayload, found: AfterMapping) -> dict[str, object]:
    """Return what of a steering decides how an opening goes on, content in place of names."""
    return {
        **{name: work.get(name) for name in _STEERS if name in work},
        "mapping": found.mapped.content_digest,
        "capture": found.captured.content_digest,
        "sides": [[work[side]["contentDigest"], work[side]["dictionary"]["identity"]]
                  for side in SIDES],
    }  # fmt: skip
