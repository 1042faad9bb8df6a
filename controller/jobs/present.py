"""The present payload of a job: what would be ordered now, since paths may have moved.

A payload holds paths and names of artifacts, which the digest leaves out. They move: a model is
copied elsewhere, an upstream gets equal content from other work, the object that queued the job is
deleted. So nothing is taken from a row that waited; the reconcilers are asked again.
"""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.controller.reconcile.snapshots import read_snapshot
from loopscope.reconcilers.plan import Wanted
from loopscope.reconcilers.registry import DESIRED_BY_KIND
from loopscope.specs.actions import Action
from loopscope.specs.canonical import canonical_json
from loopscope.specs.keys import Key
from loopscope.state.db import jobs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.db.knowledge import Knowledge, knowledge
from loopscope.state.records import ObjectRecord


@dataclass(frozen=True)
class Present:
    """What an object orders now, and the state of the database from which that follows."""

    key: Key
    generation: int
    action: Action
    known: Knowledge


def present_order(connection: Connection, job_id: int, now: float) -> Present | list[Key]:
    """Return what is ordered now for a job, first by the object that queued it.

    If no object that wants the job determines it, return the objects to look at before it may
    start: those that want it, and those of their references whose status is out of date.
    """
    job = jobs.head(connection, job_id)
    if job is None:
        return []
    wanting = objects.wanting(connection, job.digest)
    behind: list[Key] = []
    for key in sorted(wanting, key=lambda one: one != job.object):
        action = _ordered(connection, key, job.digest, now, behind)
        record = objects.get(connection, key)
        if action is not None and record is not None:
            return Present(key, record.generation, action, knowledge(connection))
    return [*behind, *wanting]


def _ordered(
    connection: Connection, key: Key, digest: str, now: float, behind: list[Key]
) -> Action | None:
    snapshot = read_snapshot(connection, key, now)
    if snapshot is None:
        return None
    desired = DESIRED_BY_KIND[key.kind](snapshot)
    action = desired.with_digest(digest) if isinstance(desired, Wanted) else None
    if action is None:
        return None
    late = [one for one in snapshot.references.values() if not _is_of_now(connection, one, now)]
    behind.extend(one.key for one in late)
    return None if late else action


def _is_of_now(connection: Connection, record: ObjectRecord, now: float) -> bool:
    """Whether a status is what a reconcile would write now about the ways to all its inputs."""
    snapshot = read_snapshot(connection, record.key, now)
    if snapshot is None:
        return False
    desired = DESIRED_BY_KIND[record.key.kind](snapshot)
    return (
        isinstance(desired, Wanted)
        and desired.action.digest == record.wanted_digest
        and canonical_json(desired.inputs) == canonical_json(record.status.inputs)
        and all(_is_of_now(connection, one, now) for one in snapshot.references.values())
    )
