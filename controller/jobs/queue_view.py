"""The queue as the controller sees it, or would see it: the scheduler is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from loopscope.controller.jobs.limits import below_floor
from loopscope.controller.jobs.queue_snapshot import priority_of, read_queue
from loopscope.controller.jobs.scheduling import Place, QueueSnapshot, schedule
from loopscope.controller.settings import SLOTS, STORAGE, Settings
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.state.db import job_queue, jobs, leader, pauses, preemptions, roots, shares
from loopscope.state.db.connection import Connection
from loopscope.state.folder import free_to_write
from loopscope.state.records import UNAVAILABLE, JobHead, ObjectRecord
from loopscope.state.share import Share
from loopscope.state.workers import worker_lives
from loopscope.views.present import present, present_jobs
from loopscope.views.queue import JobInQueue, QueueView, Starts, Upstream, Usage, Waiting

WAITING_FOR_OTHERS = ("InputsNotReady", "Resolving", UNAVAILABLE)
BEHIND = "UpstreamStalled"
"""What waits behind a stall may wait for others again by now, where no controller has noted it."""
_SECTION = {"running": 0, "pending": 1, "succeeded": 2, "failed": 2, "cancelled": 2}


def read_view(
    connection: Connection, state_path: Path, settings: Settings, now: float, *, ended: bool = False
) -> QueueView:
    """Return the queue as the controller sees it, or would see it with these settings."""
    alive = leader.living(connection)
    if alive is not None:
        settings = Settings.from_json(alive.settings)
    low = below_floor(free_to_write(state_path), settings.free_space_floor_bytes)
    listed = present_jobs(connection, jobs.listed(connection, ended=ended))
    snapshot = read_queue(connection, settings, (), now, low_space=low)
    lost = {job.id for job in listed if job.state == "pending"}
    running = tuple(one for one in snapshot.running if one.id not in lost)
    snapshot = _with_places(connection, replace(snapshot, running=running), settings)
    records = present(connection, roots.speaking_of(connection, (*WAITING_FOR_OTHERS, BEHIND)))
    return QueueView(
        now=now,
        leader=alive,
        slots=_slots(snapshot, settings),
        starts=Starts(len(snapshot.starts), settings.job_starts_per_minute, settings.burst),
        memory={
            device: Usage(_memory_taken(snapshot, device), budget)
            for device, budget in settings.memory_bytes.items()
        },
        quotas=_quotas(snapshot, settings),
        paused=pauses.listed(connection),
        jobs=_jobs(
            connection,
            listed,
            shares.listed(connection, ended=ended),
            snapshot,
            settings,
            "Next" if alive else "Controller",
        ),
        upstream=tuple(
            kept
            for one in sorted(records, key=lambda record: record.key)
            if (kept := _upstream(one)) is not None
        ),
    )


def _jobs(
    connection: Connection,
    listed: list[JobHead],
    helping: Mapping[int, Share],
    snapshot: QueueSnapshot,
    settings: Settings,
    unhindered: str,
) -> tuple[JobInQueue, ...]:
    """Return the jobs in order; ``unhindered`` is what one waits for that nothing holds back."""
    decisions = schedule(snapshot)
    place = {one.job_id: number for number, one in enumerate(decisions)}
    waits = {
        one.job_id: Waiting(one.wait.reason, one.wait.message, one.wait.until)
        for one in decisions
        if one.wait is not None
    }
    priorities = {job.id: priority_of(job, settings)[0] for job in job_queue.active(connection)}
    progress = jobs.progress_of(connection)
    asked = {job: one.words for job, one in preemptions.listed(connection).items()}
    return tuple(
        JobInQueue(
            job,
            priorities.get(job.id),
            progress.get(job.id),
            waits.get(job.id, Waiting(unhindered)) if job.state == "pending" else None,
            asked.get(job.id) if job.state == "running" else None,
            helping.get(job.id),
        )
        for job in sorted(
            listed, key=lambda job: (_SECTION[job.state], place.get(job.id, 0), job.id)
        )
    )


def _slots(snapshot: QueueSnapshot, settings: Settings) -> dict[str, Usage]:
    """Return the slots that are taken, and all of them, by device."""
    taken = Counter(one.device for one in snapshot.running)
    total = Counter(settings.slot_devices)
    return {name: Usage(taken[name], total[name]) for name in {**total, **taken}}


def _quotas(snapshot: QueueSnapshot, settings: Settings) -> dict[str, dict[str, Usage]]:
    slots = Counter(one.namespace for one in snapshot.running)
    used = {SLOTS: slots, STORAGE: snapshot.stored_bytes}
    return {
        namespace: {name: Usage(used[name].get(namespace, 0), most) for name, most in hard.items()}
        for namespace, hard in settings.resource_quotas.items()
    }


def _memory_taken(snapshot: QueueSnapshot, device: str) -> int:
    return sum(one.memory_bytes for one in snapshot.running if one.device == device)


def _with_places(
    connection: Connection, snapshot: QueueSnapshot, settings: Settings
) -> QueueSnapshot:
    """Add the slots that no running job takes, with the workers that idle there."""
    running = {job.worker for job in jobs.running(connection)}
    workers = leader.workers(connection).values()
    idle = [one for one in workers if one.name not in running and worker_lives(one.name)]
    places: list[Place] = []
    for device, total in Counter(settings.slot_devices).items():
        free = total - sum(1 for one in snapshot.running if one.device == device)
        warm = [Place(device, one.name, one.model) for one in idle if one.device == device]
        empty = max(0, free - len(warm))
        places += [*warm[: max(0, free)], *[Place(device)] * empty]
    return replace(snapshot, places=tuple(places))


def _upstream(record: ObjectRecord) -> Upstream | None:
    """Return what keeps an object without a job waiting; None for one that waits for no other."""
    ready = record.status.condition("Ready")
    if record.key.kind in OWNER_KINDS or ready is None or record.stalled:
        return None
    if ready.status != "False" or ready.reason not in WAITING_FOR_OTHERS:
        return None
    return Upstream(record.key, ready.reason, ready.message, ready.last_transition_time)
