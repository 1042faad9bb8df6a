"""The scheduler's snapshot, put together from rows; used to claim and to explain."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from loopscope.controller.jobs.limits import WINDOW_SECONDS
from loopscope.controller.jobs.quotas import Quotas
from loopscope.controller.jobs.scheduling import PendingJob, Place, QueueSnapshot, RunningJob
from loopscope.controller.settings import STORAGE, Settings
from loopscope.specs.actions import SHAREABLE, WITHOUT_SHARDS
from loopscope.specs.keys import (
    MEMORY_ANNOTATION,
    PARALLELISM_ANNOTATION,
    PRIORITY_ANNOTATION,
    Key,
)
from loopscope.specs.parallelism import worker_count
from loopscope.specs.sizes import byte_count
from loopscope.state.artifacts import index as artifacts_of
from loopscope.state.db import job_queue, jobs, leader, pauses, shares
from loopscope.state.db.connection import Connection
from loopscope.state.records import PREEMPTED, UNPLACEABLE, QueuedJob, Wanting, WorkerRecord
from loopscope.state.share import Share

FAIR_SHARE_SECONDS = 3600.0
"""How far back worker time counts. Starts are remembered for as long."""
NORMAL, INTERACTIVE = "normal", "interactive"


def read_queue(
    connection: Connection,
    settings: Settings,
    places: tuple[Place, ...],
    now: float,
    *,
    low_space: str | None = None,
) -> QueueSnapshot:
    """Return the active jobs with all that decides about them, read in one transaction."""
    active = job_queue.active(connection)
    paused = pauses.listed(connection)
    workers = leader.workers(connection)
    used = job_queue.used_seconds(connection, now - FAIR_SHARE_SECONDS, now)
    helped = _by_job(shares.listed(connection))
    return QueueSnapshot(
        now=now,
        limits=settings.limits,
        pending=tuple(
            _pending(job, settings, paused, helped.get(job.id, ()))
            for job in active
            if job.state == "pending"
        ),
        running=tuple(
            _running(job, settings, workers, helped.get(job.id, ()))
            for job in active
            if job.state == "running"
        ),
        places=places,
        starts=tuple(jobs.starts_since(connection, now - WINDOW_SECONDS)),
        used_seconds={_name(key): seconds for key, seconds in used.items()},
        stored_bytes=stored_bytes(connection, settings.resource_quotas),
        low_space=low_space,
        makers={name: one.maker for name, one in workers.items() if one.maker is not None},
        makes_room={job.id: by for job in active if (by := job.makes_room_for) is not None},
    )


def stored_bytes(connection: Connection, quotas: Quotas) -> dict[str, int]:
    """Return what the artifacts of each namespace take whose quota limits that."""
    limited = [name for name, hard in quotas.items() if STORAGE in hard]
    return artifacts_of.bytes_by_namespace(connection, limited) if limited else {}


def priority_of(job: QueuedJob, settings: Settings) -> tuple[str, int]:
    """Return the highest priority class of the objects that want the job, and its value.

    A class that is not known counts as ``normal``. Somebody waits for the answer to a Question:
    where it names no class, it is ``interactive``.
    """
    classes = {one.annotations.get(PRIORITY_ANNOTATION, _usual(one.key)) for one in job.wanted_by}
    values = {name: settings.priority_classes.get(name, 0) for name in classes or {NORMAL}}
    best = max(sorted(values), key=lambda name: values[name])
    return best, values[best]


def preempting_class(job: QueuedJob, settings: Settings) -> tuple[str, int] | None:
    """Return the highest class that preempts of the objects that want the job, and its value."""
    classes = {one.annotations.get(PRIORITY_ANNOTATION, _usual(one.key)) for one in job.wanted_by}
    values = settings.priority_classes
    rights = classes.intersection(settings.preempting_classes)
    return max(((name, values[name]) for name in sorted(rights)), key=_value, default=None)


def _value(priority: tuple[str, int]) -> int:
    return priority[1]


def _usual(key: Key) -> str:
    return INTERACTIVE if key.kind == "Question" else NORMAL


def _by_job(found: Mapping[int, Share]) -> dict[int, tuple[Share, ...]]:
    """Return the shares of each job."""
    of: dict[int, tuple[Share, ...]] = {}
    for one in found.values():
        of[one.of_job] = (*of.get(one.of_job, ()), one)
    return of


def _pending(
    job: QueuedJob, settings: Settings, paused: Collection[str], helped_by: tuple[Share, ...]
) -> PendingJob:
    own = job.share or (helped_by[-1] if helped_by else None)
    return PendingJob(
        id=job.id,
        queued_at=job.created_at,
        not_before=job.not_before,
        experiments=_experiments(job),
        namespaces=_namespaces(job),
        priority=priority_of(job, settings)[1],
        model=job.model,
        memory_bytes=_memory_bytes(job, settings),
        paused_by=_paused_by(job, paused),
        why=f"{job.reason}: {job.message}" if job.reason else "",
        refusal=job.message if job.reason == UNPLACEABLE else None,
        preempts_as=preempting_class(job, settings),
        made_room=job.message if job.reason == PREEMPTED else None,
        was_interrupted=_was_interrupted(job),
        maker=own.maker if own is not None else None,
        is_share=job.share is not None,
    )


def _was_interrupted(job: QueuedJob) -> bool:
    """Whether a job that waits again goes on before others begin.

    Not one that waits for a reason of its own, nor one that lost a second worker without having got
    on: it may be what ends them, and waits in its turn.
    """
    return job.started_at is not None and job.reason is None and job.losses <= 1


def _running(
    job: QueuedJob,
    settings: Settings,
    workers: Mapping[str, WorkerRecord],
    helped_by: tuple[Share, ...],
) -> RunningJob:
    worker = workers.get(job.worker or "")
    device = worker.device if worker else settings.slot_devices[0]
    return RunningJob(
        job.id,
        device,
        _experiments(job)[0],
        _memory_bytes(job, settings),
        job.object.namespace,
        priority_of(job, settings),
        job.started_at or 0.0,
        job.token,
        job.stage not in WITHOUT_SHARDS,
        _parallelism(job, settings),
        worker.maker if worker else None,
        helped_by,
    )


def _parallelism(job: QueuedJob, settings: Settings) -> int:
    """Return how many workers are to make a job's shards, as many as there are slots at most.

    What an object that wants it is annotated with goes before the settings; the largest counts.
    """
    if job.share is not None or job.stage not in SHAREABLE:
        return 1
    asked = (worker_count(one.annotations.get(PARALLELISM_ANNOTATION, "")) for one in job.wanted_by)
    known = [count for count in asked if count is not None]
    most = max(known, default=settings.stage_parallelism.get(job.stage, 1))
    return min(most, len(settings.slot_devices))


def _experiments(job: QueuedJob) -> tuple[str, ...]:
    """Return all objects that want the job; the one that queued it is charged and goes first."""
    charged = next((_owner(w) for w in job.wanted_by if w.key == job.object), job.object)
    others = [_owner(wanting) for wanting in job.wanted_by]
    return tuple(dict.fromkeys(_name(key) for key in (charged, *others)))


def _namespaces(job: QueuedJob) -> tuple[str, ...]:
    """Return the namespaces that want the job; that of the object that queued it is charged."""
    wanting = (wanting.key.namespace for wanting in job.wanted_by)
    return tuple(dict.fromkeys((job.object.namespace, *wanting)))


def _paused_by(job: QueuedJob, paused: Collection[str]) -> str | None:
    """Return the pause that holds the job, if every object that wants it is paused."""
    wanted_by = job.wanted_by or (Wanting(job.object),)
    held = [pauses.holding(paused, one.key, one.owner, job.stage) for one in wanted_by]
    return held[0] if all(held) else None


def _memory_bytes(job: QueuedJob, settings: Settings) -> int:
    """Return the largest memory that an annotation gives, else what the stage is assumed to use."""
    sizes = [
        size
        for one in job.wanted_by
        if (size := byte_count(one.annotations.get(MEMORY_ANNOTATION, ""))) is not None
    ]
    return max(sizes, default=settings.stage_memory_bytes.get(job.stage, 0))


def _owner(wanting: Wanting) -> Key:
    return wanting.owner or wanting.key


def _name(key: Key) -> str:
    return pauses.scope_of(key)
