"""Jobs and the queue as documents: what ``queue -o json`` prints."""

from __future__ import annotations

from typing import TypedDict

from loopscope.state.records import JobHead, JobState, Progress
from loopscope.views.jobs import remaining_seconds, token_speed
from loopscope.views.numbers import iso
from loopscope.views.queue import JobInQueue, QueueView, Usage, Waiting


class ProgressDocument(TypedDict):
    """How far a running job is."""

    phase: str
    done: int
    total: int
    unit: str
    tokensPerSecond: float | None
    etaSeconds: float | None
    updatedAt: str | None


class JobDocument(TypedDict):
    """A job; ``progress`` is null unless it runs and reports."""

    id: int
    stage: str
    state: JobState
    digest: str
    object: str
    attempts: int
    losses: int
    createdAt: str | None
    startedAt: str | None
    finishedAt: str | None
    notBefore: str | None
    worker: str | None
    reason: str | None
    message: str | None
    progress: ProgressDocument | None


class WaitsForDocument(TypedDict):
    """Why a job waits."""

    reason: str
    message: str | None
    until: str | None


class QueuedJobDocument(JobDocument):
    """A job in the queue; ``waitsFor`` is null unless it is pending.

    ``makesRoomFor`` is null unless it runs and was asked to give its slot to another one;
    ``shareOf`` is the job of which it makes shards, null for one that makes an artifact.
    """

    priority: str | None
    waitsFor: WaitsForDocument | None
    makesRoomFor: str | None
    shareOf: int | None


class ControllerDocument(TypedDict):
    """The process that controls."""

    process: str
    startedAt: str | None


class SlotsDocument(TypedDict):
    """The slots of a device."""

    taken: int
    total: int


class StartsDocument(TypedDict):
    """Job starts, and their limits."""

    lastMinute: int
    perMinute: int
    burst: int | None


class PauseDocument(TypedDict):
    """A pause."""

    scope: str
    since: str | None


class UpstreamDocument(TypedDict):
    """An object without a job, because what it rests on is not there yet."""

    object: str
    reason: str
    message: str


class QuotaDocument(TypedDict):
    """A quota with the field names of Kubernetes' ResourceQuota; storage is in bytes."""

    hard: dict[str, int]
    used: dict[str, int]


class QueueDocument(TypedDict):
    """The queue with its limits; ``memoryBytes`` holds the budgets."""

    controller: ControllerDocument | None
    slots: dict[str, SlotsDocument]
    starts: StartsDocument
    memoryBytes: dict[str, int]
    resourceQuotas: dict[str, QuotaDocument]
    paused: list[PauseDocument]
    jobs: list[QueuedJobDocument]
    upstream: list[UpstreamDocument]


def queue_document(view: QueueView) -> QueueDocument:
    """Return the queue as a document."""
    leader, starts = view.leader, view.starts
    return {
        "controller": {"process": leader.process, "startedAt": iso(leader.started_at)}
        if leader is not None
        else None,
        "slots": {name: _slots(usage) for name, usage in view.slots.items()},
        "starts": {
            "lastMinute": starts.last_minute,
            "perMinute": starts.per_minute,
            "burst": starts.burst,
        },
        "memoryBytes": {device: usage.total for device, usage in view.memory.items()},
        "resourceQuotas": {
            name: {
                "hard": {limited: usage.total for limited, usage in quota.items()},
                "used": {limited: usage.taken for limited, usage in quota.items()},
            }
            for name, quota in view.quotas.items()
        },
        "paused": [{"scope": scope, "since": iso(at)} for scope, at in view.paused.items()],
        "jobs": [_queued(one) for one in view.jobs],
        "upstream": [
            {"object": str(one.key), "reason": one.reason, "message": one.message}
            for one in view.upstream
        ],
    }


def _slots(usage: Usage) -> SlotsDocument:
    return {"taken": usage.taken, "total": usage.total}


def _queued(one: JobInQueue) -> QueuedJobDocument:
    return {
        **job_document(one.job, one.progress),
        "priority": one.priority,
        "waitsFor": _waits_for(one.waiting) if one.waiting is not None else None,
        "makesRoomFor": one.makes_room_for,
        "shareOf": one.share.of_job if one.share is not None else None,
    }


def _waits_for(waiting: Waiting) -> WaitsForDocument:
    until = iso(waiting.until, "milliseconds")
    return {"reason": waiting.reason, "message": waiting.message, "until": until}


def job_document(job: JobHead, progress: Progress | None = None) -> JobDocument:
    """Return a job as a document."""
    return {
        "id": job.id,
        "stage": job.stage,
        "state": job.state,
        "digest": job.digest,
        "object": str(job.object),
        "attempts": job.attempts,
        "losses": job.losses,
        "createdAt": iso(job.created_at, "milliseconds"),
        "startedAt": iso(job.started_at, "milliseconds"),
        "finishedAt": iso(job.finished_at, "milliseconds"),
        "notBefore": iso(job.not_before, "milliseconds"),
        "worker": job.worker,
        "reason": job.reason,
        "message": job.message,
        "progress": _progress(progress) if progress else None,
    }


def _progress(progress: Progress) -> ProgressDocument:
    left = remaining_seconds(progress)
    return {
        "phase": progress.phase,
        "done": progress.done,
        "total": progress.total,
        "unit": progress.unit,
        "tokensPerSecond": None if (rate := token_speed(progress)) is None else round(rate, 1),
        "etaSeconds": None if left is None else round(left, 1),
        "updatedAt": iso(progress.updated_at, "milliseconds"),
    }
