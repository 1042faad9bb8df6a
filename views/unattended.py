"""Objects while no controller lives: in the state of their jobs, in its words.

What it would record next is planned as it would plan it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from loopscope.reconcilers import experiment
from loopscope.reconcilers.plan import Blocked, Observed, Snapshot, Wanted
from loopscope.reconcilers.references import object_references
from loopscope.reconcilers.stage import plan_stage, ready_reference
from loopscope.specs.actions import Action, Stage
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.specs.status import Status
from loopscope.state.db import jobs, objects, pauses
from loopscope.state.db.connection import Connection
from loopscope.state.records import JobHead, ObjectRecord
from loopscope.state.workers import without_lost_worker


@dataclass(frozen=True)
class Unattended:
    """Objects that no controller looks after; ``paused`` says since when which scope is."""

    connection: Connection
    paused: dict[str, float]
    _upstream: dict[Key, ObjectRecord | None] = field(default_factory=dict)

    def of(self, records: Sequence[ObjectRecord]) -> list[ObjectRecord]:
        """Return the objects with the status that their jobs and what they own give them now."""
        wanted = {r.wanted_digest for r in records if r.wanted_digest and _waits_for_work(r)}
        latest = jobs.latest_of(self.connection, wanted)
        return [self._one(record, latest.get(record.wanted_digest or "")) for record in records]

    def _one(self, record: ObjectRecord, job: JobHead | None) -> ObjectRecord:
        if record.ready or record.status.observed_generation != record.generation:
            return record
        if record.key.kind in OWNER_KINDS:
            return self._experiment(record)
        if _waits_for_others(record):
            return self._behind(record)
        if job is None or not _waits_for_work(record):
            return record
        wanted = Wanted(Action(cast(Stage, job.stage), {}, {}), record.status.inputs)
        scope = pauses.holding(self.paused, record.key, record.owner, job.stage)
        held = {job.stage: scope} if scope is not None else {}
        snapshot = Snapshot(record, _when(job), paused_stages=held)
        # the way to the inputs is not looked up here: the job is assumed to be on the present one
        job = replace(without_lost_worker(job), way=wanted.action.way)
        plan = plan_stage(snapshot, wanted, Observed(job=job))
        return _with_conditions(record, plan.status)

    def _behind(self, record: ObjectRecord) -> ObjectRecord:
        """Return an object that waits for another, in the words that follow from that one."""
        for key in object_references(record):
            upstream = self.get(key)
            if upstream is None:
                continue
            paused_by = self._paused_by(record)
            at = _changed_at(upstream)
            snapshot = Snapshot(record, at, references={key: upstream}, paused_by=paused_by)
            blocked = ready_reference(snapshot, key, None)
            if isinstance(blocked, Blocked):
                return _with_conditions(record, plan_stage(snapshot, blocked, Observed()).status)
        return record

    def get(self, key: Key) -> ObjectRecord | None:
        """Return an object with that status, or None."""
        if key not in self._upstream:
            stored = objects.get(self.connection, key)
            self._upstream[key] = self.of([stored])[0] if stored is not None else None
        return self._upstream[key]

    def _experiment(self, record: ObjectRecord) -> ObjectRecord:
        stored = objects.owned_by(self.connection, record.uid)
        owned = self.of(stored)
        paused_by = self._paused_by(record)
        was_held = record.status.condition("Suspended") is not None
        if owned == stored and was_held == (paused_by is not None):
            return record
        now = max((_changed_at(child) for child in owned), default=0.0)
        snapshot = Snapshot(record, now, children=tuple(owned), paused_by=paused_by)
        return _with_conditions(record, experiment.plan(snapshot).status)

    def _paused_by(self, record: ObjectRecord) -> str | None:
        stage = None if record.key.kind in OWNER_KINDS else record.key.kind.lower()
        return pauses.holding(self.paused, record.key, record.owner, stage)


def _waits_for_work(record: ObjectRecord) -> bool:
    """Whether all that an unfinished stage needs is its job."""
    inputs = record.status.condition("InputsReady")
    return not record.ready and inputs is not None and inputs.status == "True"


def _waits_for_others(record: ObjectRecord) -> bool:
    ready = record.status.condition("Ready")
    return ready is not None and ready.reason in ("InputsNotReady", "UpstreamStalled")


def _with_conditions(record: ObjectRecord, status: Status) -> ObjectRecord:
    current = replace(record.status, conditions=status.conditions, summary=status.summary)
    return record if current == record.status else replace(record, status=current)


def _when(job: JobHead) -> float:
    return job.finished_at or job.started_at or job.created_at


def _changed_at(record: ObjectRecord) -> float:
    return max((c.last_transition_time for c in record.status.conditions), default=0.0)
