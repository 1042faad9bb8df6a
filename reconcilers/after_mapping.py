"""The beginning of steering, evidence and questions: a capture, and a mapping that rests on it."""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.reconcilers.plan import Blocked, Snapshot
from loopscope.reconcilers.references import object_references
from loopscope.reconcilers.stage import artifact_of, last_used, ready_reference
from loopscope.state.records import ArtifactRecord, ObjectRecord


@dataclass(frozen=True)
class AfterMapping:
    """A capture and a mapping that are Ready, with what they made."""

    capture: ObjectRecord
    captured: ArtifactRecord
    mapping: ObjectRecord
    mapped: ArtifactRecord


def after_mapping(snapshot: Snapshot) -> AfterMapping | Blocked:
    """Return the two that the object refers to, or why it must wait or cannot go on."""
    found: list[tuple[ObjectRecord, ArtifactRecord]] = []
    named = {key.kind.lower(): key for key in object_references(snapshot.object)}
    for name, key in ((name, named[name]) for name in ("capture", "mapping")):
        record = ready_reference(snapshot, key, last_used(snapshot, name))
        if isinstance(record, Blocked):
            return record
        artifact = artifact_of(snapshot, record)
        if isinstance(artifact, Blocked):
            return artifact
        found.append((record, artifact))
    (capture, captured), (mapping, mapped) = found
    if mapping.status.inputs["capture"]["contentDigest"] != captured.content_digest:
        return Blocked(
            "InputMismatch", f"{mapping.key} does not rest on {capture.key}", terminal=True
        )
    return AfterMapping(capture, captured, mapping, mapped)
