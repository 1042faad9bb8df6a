"""The read model of ``queue``: who controls, what is taken, what waits for what."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from loopscope.controller.jobs.limits import below_floor
from loopscope.controller.jobs.queue_snapshot import priority_of, read_queue
from loopscope.controller.jobs.scheduling import Place, QueueSnapshot, Wait, schedule
from loopscope.controller.settings import Settings
from loopscope.reports.present import present, present_jobs
from loopscope.state.db import job_queue, jobs, leader, objects, pauses
from loopscope.state.db.connection import Connection
from loopscope.state.files import free_bytes
from loopscope.state.records import UNAVAILABLE, JobHead, LeaderRecord, ObjectRecord, Progress
from loopscope.state.workers import worker_lives

WAITING_FOR_OTHERS = ("InputsNotReady", "Resolving", UNAVAILABLE)


@dataclass(frozen=True)
class QueueView:
    """Everything that ``loopscope queue`` prints, read in one transaction."""

    now: float
    leader: LeaderRecord | None
    """Who controls; None when no controller runs."""
    settings: Settings
    snapshot: QueueSnapshot
    waits: dict[int, Wait]
    jobs: list[JobHead]
    """Running jobs, then the waiting ones in the order in which they are next, then ended ones."""
    priorities: dict[int, str]
    progress: dict[int, Progress]
    paused: dict[str, float]
    upstream: list[ObjectRecord]
    """Objects without a job, because what they rest on is not there yet."""

    @property
    def slots(self) -> dict[str, tuple[int, int]]:
        """Slots that are taken, and all of them, by device."""
        taken = Counter(one.device for one in self.snapshot.running)
        total = Counter(self.settings.slot_devices)
        return {name: (taken[name], total[name]) for name in {**total, **taken}}

    def of_namespace(self, namespace: str) -> QueueView:
        """Return the view with the jobs and objects of one namespace; limits are for all."""
        return replace(
            self,
            jobs=[job for job in self.jobs if job.object.namespace == namespace],
            upstream=[one for one in self.upstream if one.key.namespace == namespace],
        )


def read_view(
    connection: Connection, state_path: Path, settings: Settings, now: float, *, ended: bool = False
) -> QueueView:
    """Return the queue as the controller sees it, or would see it with these settings."""
    alive = leader.living(connection)
    if alive is not None:
        settings = Settings.from_json(alive.settings)
    low = below_floor(free_bytes(state_path), settings.free_space_floor_bytes)
    listed = present_jobs(connection, jobs.listed(connection, ended=ended))
    snapshot = read_queue(connection, settings, (), now, low_space=low)
    lost = {job.id for job in listed if job.state == "pending"}
    running = tuple(one for one in snapshot.running if one.id not in lost)
    snapshot = _with_places(connection, replace(snapshot, running=running), settings)
    decisions = schedule(snapshot)
    place = {one.job_id: number for number, one in enumerate(decisions)}
    active = job_queue.active(connection)
    return QueueView(
        now=now,
        leader=alive,
        settings=settings,
        snapshot=snapshot,
        waits={one.job_id: one.wait for one in decisions if one.wait is not None},
        jobs=sorted(listed, key=lambda job: (_SECTION[job.state], place.get(job.id, 0), job.id)),
        priorities={job.id: priority_of(job, settings)[0] for job in active},
        progress=jobs.progress_of(connection),
        paused=pauses.listed(connection),
        upstream=[
            one for one in present(connection, objects.listed(connection)) if _waits_for_others(one)
        ],
    )


_SECTION = {"running": 0, "pending": 1, "succeeded": 2, "failed": 2, "cancelled": 2}


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
    return QueueSnapshot(**{**snapshot.__dict__, "places": tuple(places)})


def _waits_for_others(record: ObjectRecord) -> bool:
    ready = record.status.condition("Ready")
    if record.key.kind == "Experiment" or ready is None or record.stalled:
        return False
    return ready.status == "False" and ready.reason in WAITING_FOR_OTHERS
