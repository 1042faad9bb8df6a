"""The choice of who makes room for whom: a pure function of the queue.

A waiting job of a class that preempts asks a running job of a class with a lower *value*. How long
either of them waited does not count, else two jobs could push each other out in turns. It is asked
only where that would let the waiting one start at once: by memory, quotas, pauses and rate as they
are. One that was asked already is preferred, so that no second one is asked instead of it; then the
lowest class, and in it what started last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from loopscope.controller.jobs.scheduling import (
    PendingJob,
    Place,
    QueueSnapshot,
    RunningJob,
    decided,
    ranked,
)


@dataclass(frozen=True)
class Request:
    """A running job that is to make room, for whom, and by which classes."""

    job_id: int
    token: int
    by_job: int
    classes: tuple[str, str]
    """Of who asks, and of who is asked."""


def requests(snapshot: QueueSnapshot) -> list[Request]:
    """Return who is to make room now, one running job for each that would start in its place.

    The highest class asks first.
    """
    if not any(job.preempts_as for job in snapshot.pending):
        return []
    asking: list[tuple[int, PendingJob]] = []
    for job in ranked(snapshot):
        decision, snapshot = decided(snapshot, job)
        waits = decision.wait is not None and decision.wait.reason in ("Slot", "Preempted")
        if waits and job.preempts_as is not None:
            asking.append((job.preempts_as[1], job))
    return list(_answered(snapshot, sorted(asking, key=lambda one: -one[0])))


def _answered(snapshot: QueueSnapshot, asking: list[tuple[int, PendingJob]]) -> Iterator[Request]:
    for value, job in asking:
        for lower in sorted(snapshot.running, key=lambda one: _standing(snapshot, one)):
            if lower.priority[1] >= value or not lower.has_shards:
                continue
            decision, after = decided(_without(snapshot, lower), job)
            if decision.place is not None:
                assert job.preempts_as is not None  # only those ask
                classes = (_words(job.preempts_as), _words(lower.priority))
                yield Request(lower.id, lower.token, job.id, classes)
                snapshot = after
                break


def _standing(snapshot: QueueSnapshot, job: RunningJob) -> tuple[bool, int, float, int]:
    return job.id not in snapshot.makes_room, job.priority[1], -job.started_at, -job.id


def _without(snapshot: QueueSnapshot, job: RunningJob) -> QueueSnapshot:
    """Return the snapshot in which a job's slot is the only free one."""
    running = tuple(one for one in snapshot.running if one.id != job.id)
    return replace(snapshot, running=running, places=(Place(job.device),))


def _words(priority: tuple[str, int]) -> str:
    return f"{priority[0]} {priority[1]}"
