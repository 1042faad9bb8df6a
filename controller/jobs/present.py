"""The present payload of a job: what would be ordered now, since paths may have moved.

A payload holds paths and names of artifacts, which the digest leaves out. They move: a model is
copied elsewhere, an upstream gets equal content from other work, the object that queued the job is
deleted. So nothing is taken from a row that waited; the reconcilers are asked again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from loopscope.controller.reconcile.snapshots import read_snapshot
from loopscope.reconcilers.plan import Snapshot, Wanted
from loopscope.reconcilers.registry import DESIRED_BY_KIND
from loopscope.specs.actions import Action
from loopscope.specs.canonical import canonical_json
from loopscope.specs.keys import Key
from loopscope.state.db import jobs, objects, shares
from loopscope.state.db.connection import Connection
from loopscope.state.db.knowledge import Knowledge, beside_jobs
from loopscope.state.records import ObjectRecord


@dataclass(frozen=True)
class Present:
    """What an object orders now, and the state of the database from which that follows."""

    key: Key
    generation: int
    action: Action
    known: Knowledge


@dataclass
class _Moment:
    """One read transaction: each object is read, and judged, once."""

    connection: Connection
    now: float
    snapshots: dict[Key, Snapshot | None] = field(default_factory=dict)
    of_now: dict[Key, bool] = field(default_factory=dict)

    def snapshot(self, key: Key) -> Snapshot | None:
        if key not in self.snapshots:
            self.snapshots[key] = read_snapshot(self.connection, key, self.now)
        return self.snapshots[key]


def present_order(connection: Connection, job_id: int, now: float) -> Present | list[Key]:
    """Return what is ordered now for a job, first by the object that queued it.

    If no object that wants the job determines it, return the objects to look at before it may
    start: those that want it, and those of their references whose status is out of date.
    """
    job = jobs.head(connection, job_id)
    if job is None:
        return []
    share = shares.get(connection, job_id)
    digest = job.digest if share is None else share.digest
    wanting = objects.wanting(connection, digest)
    behind: list[Key] = []
    moment = _Moment(connection, now)
    for key in sorted(wanting, key=lambda one: one != job.object):
        action = _ordered(moment, key, digest, behind)
        snapshot = moment.snapshot(key)
        if action is not None and snapshot is not None:
            if share is not None:
                action = share.action(action.stage, action.payload)
            return Present(key, snapshot.object.generation, action, beside_jobs(connection))
    return [*behind, *wanting]


def _ordered(moment: _Moment, key: Key, digest: str, behind: list[Key]) -> Action | None:
    snapshot = moment.snapshot(key)
    if snapshot is None:
        return None
    desired = DESIRED_BY_KIND[key.kind](snapshot)
    action = desired.with_digest(digest) if isinstance(desired, Wanted) else None
    if action is None:
        return None
    late = [one for one in snapshot.references.values() if not _is_of_now(moment, one)]
    behind.extend(one.key for one in late)
    return None if late else action


def _is_of_now(moment: _Moment, record: ObjectRecord) -> bool:
    """Whether a status is what a reconcile would write now about the ways to all its inputs."""
    if record.key not in moment.of_now:
        moment.of_now[record.key] = _judged(moment, record)
    return moment.of_now[record.key]


def _judged(moment: _Moment, record: ObjectRecord) -> bool:
    snapshot = moment.snapshot(record.key)
    if snapshot is None:
        return False
    desired = DESIRED_BY_KIND[record.key.kind](snapshot)
    return (
        isinstance(desired, Wanted)
        and desired.action.digest == record.wanted_digest
        and canonical_json(desired.inputs) == canonical_json(record.status.inputs)
        and all(_is_of_now(moment, one) for one in snapshot.references.values())
    )
