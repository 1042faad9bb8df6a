"""Leases whose worker died or fell silent are taken back; nobody adopts a running job."""

from __future__ import annotations

from typing import Any

from loopscope.controller.executor import Executor
from loopscope.specs.keys import Key
from loopscope.state import events, jobs
from loopscope.state.records import JobRecord
from loopscope.state.retry_policy import RetryPolicy


def lost_jobs(running: list[JobRecord], executor: Executor, now: float) -> list[JobRecord]:
    """Return the running jobs whose worker is gone or whose lease has expired."""
    return [
        job
        for job in running
        if (job.lease_expires_at is not None and job.lease_expires_at <= now)
        or job.worker is None
        or not executor.is_alive(job.worker)
    ]


def take_back(
    connection: Any, job: JobRecord, policy: RetryPolicy, now: float, how: str = ""
) -> list[Key]:
    """End a lost lease; return the objects to look at again. ``how`` the worker ended, if known.

    An artifact that the worker managed to publish is found by the reconcile that follows.
    """
    again = jobs.lose(connection, job, how, now=now, policy=policy)
    message = f"{job.stage} job {job.id} lost its worker{f', which {how}' if how else ''}; " + (
        "it is queued again" if again else "it was lost too often and is given up"
    )
    events.record(connection, job.object, "Warning", "WorkerLost", message, now=now)
    return [job.object]
