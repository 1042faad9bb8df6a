"""The commit: a plan becomes status, children, job and events, in one transaction."""

from __future__ import annotations

import structlog

from loopscope.reconcilers.plan import ChildManifest, Plan, Snapshot
from loopscope.specs.actions import Action
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db import events, jobs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.db.objects import Conflict, Outcome
from loopscope.state.failures import TerminalFailure
from loopscope.state.job_facts import references_in
from loopscope.state.records import ObjectRecord

log = structlog.get_logger("controller")

_CHILD_EVENTS: dict[Outcome, str] = {"created": "Created", "configured": "Configured"}


def commit(
    connection: Connection, artifacts: ArtifactStore, snapshot: Snapshot, plan: Plan, now: float
) -> int | None:
    """Write a plan; return the job that it added, if any.

    Raises Conflict when the object has changed since the snapshot.
    """
    record = snapshot.object
    _refuse_collected(connection, artifacts, plan)
    changed = objects.update_status(connection, record, plan.status, plan.wanted_digest)
    if plan.quarantine is not None:
        artifact_index.forget(connection, plan.quarantine.digest)
        artifacts.quarantine(plan.quarantine.stage, plan.quarantine.digest)
        what = "another object that rests on this artifact found it damaged"
        objects.take_ready_away(connection, plan.quarantine.digest, what, now=now)
    if plan.adopt is not None:
        artifact_index.record(connection, plan.adopt)
        _end_job_of(connection, plan.adopt.digest, now)
    added = _enqueue(connection, snapshot, plan.enqueue, now) if plan.enqueue else None
    _apply_children(connection, snapshot, plan, now)
    if changed or plan.quarantine is not None:
        for event in plan.events:
            events.record(connection, record.key, event.type, event.reason, event.message, now=now)
    return added


def would_write(snapshot: Snapshot, plan: Plan) -> bool:
    """Whether committing the plan changes anything; a converged object writes nothing."""
    record = snapshot.object
    same_status = plan.status == record.status and plan.wanted_digest == record.wanted_digest
    acts = plan.enqueue or plan.quarantine or plan.adopt or plan.apply or plan.remove
    return not same_status or bool(acts)


def log_committed(snapshot: Snapshot, plan: Plan, job_added: int | None) -> None:
    """Log in one line what a plan made of an object."""
    ready = plan.status.condition("Ready")
    log.info(
        "reconciled",
        object=str(snapshot.object.key),
        generation=snapshot.object.generation,
        digest=(plan.wanted_digest or "")[:12],
        ready=ready.status if ready else None,
        reason=ready.reason if ready else None,
        job_added=job_added,
    )


def _refuse_collected(connection: Connection, artifacts: ArtifactStore, plan: Plan) -> None:
    """Raise Conflict when the artifact of a plan or an input of its job was collected meanwhile."""
    needed = set(references_in(plan.enqueue.payload)) if plan.enqueue else set()
    if plan.adopt is not None:
        there = artifacts.holds(plan.adopt.stage, plan.adopt.digest)
    else:
        needed |= {plan.status.artifact.digest} if plan.status.artifact else set()
        there = True
    if not there or any(artifact_index.get(connection, digest) is None for digest in needed):
        raise Conflict("an artifact that the plan rests on was collected meanwhile")


def _enqueue(connection: Connection, snapshot: Snapshot, action: Action, now: float) -> int | None:
    record = snapshot.object
    job_id, added = jobs.enqueue(connection, action, record.key, record.generation, now=now)
    if added:
        message = f"queued {action.stage} job {job_id}"
        events.record(connection, record.key, "Normal", "JobQueued", message, now=now)
    return job_id if added else None


def _end_job_of(connection: Connection, digest: str, now: float) -> None:
    job = jobs.find_active(connection, digest)
    if job is not None:
        jobs.adopt_artifact(connection, job.id, now=now)


def _apply_children(connection: Connection, snapshot: Snapshot, plan: Plan, now: float) -> None:
    owner = snapshot.object
    before = {child.key for child in snapshot.children}
    for child in plan.apply:
        outcome = _apply_child(connection, owner, child, now)
        if outcome in _CHILD_EVENTS:
            verb = _CHILD_EVENTS[outcome] if child.key not in before else "Configured"
            events.record(connection, owner.key, "Normal", verb, f"{verb} {child.key}", now=now)
    for key in plan.remove:
        if objects.get(connection, key) is None:
            continue  # deleted since the snapshot
        objects.remove(connection, key, now=now)
        events.record(connection, owner.key, "Normal", "Removed", f"Removed {key}", now=now)


def _apply_child(
    connection: Connection, owner: ObjectRecord, child: ChildManifest, now: float
) -> Outcome:
    labels = {**child.labels, "loopscope.dev/experiment": owner.key.name}
    try:
        return objects.apply(connection, child.key, child.spec, now=now, labels=labels, owner=owner)
    except TerminalFailure as refused:
        events.record(connection, owner.key, "Warning", refused.reason, refused.message, now=now)
        return "unchanged"
