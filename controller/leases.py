"""Leases whose worker died or fell silent are taken back; nobody adopts a running job.

A worker that nobody lets write is not silent: while another process holds the write lock, its
heartbeats wait as the controller does. So silence counts only if it still stands in the transaction
that takes the lease, and only if that one did not have to wait for the lock itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import structlog

from loopscope.controller.clock import Clock
from loopscope.controller.executor import Executor
from loopscope.specs.keys import Key
from loopscope.state import events, failpoints, jobs, objects
from loopscope.state.database import Database
from loopscope.state.failures import TransientFailure
from loopscope.state.records import JobHead
from loopscope.state.retry_policy import RetryPolicy

log = structlog.get_logger("controller")

CHECK_SECONDS = 1.0
LOCK_WAIT_SECONDS = 0.5
"""Who waited longer than this for the write lock gives workers the time to write first."""


@dataclass
class Leases:
    """Looks once a second who is lost."""

    database: Database
    clock: Clock
    executor: Executor
    policy: RetryPolicy
    _next_check_at: float = 0.0

    def check_at_once(self) -> None:
        """Let the next call look, however soon it comes."""
        self._next_check_at = 0.0

    def take_back_lost(self) -> Iterator[list[Key]]:
        """Take back what is lost, one by one; yield the objects to look at again."""
        now = self.clock.now()
        if now < self._next_check_at:
            return
        self._next_check_at = now + CHECK_SECONDS
        with self.database.read() as connection:
            running = jobs.running(connection)
        for job in running:
            gone = is_gone(job, self.executor)
            if gone or is_silent(job, now):
                yield from self._take_back(job, gone, now)

    def _take_back(self, job: JobHead, gone: bool, now: float) -> Iterator[list[Key]]:
        failpoints.reach("lease-take-back")
        how = self.executor.how_it_ended(job.worker or "")
        try:
            with self.database.write() as connection:
                began = self.clock.now()
                if not gone and began > now + LOCK_WAIT_SECONDS:
                    self._next_check_at = began + CHECK_SECONDS
                    return
                keys = take_back(connection, job, self.policy, now, how, if_expired=not gone)
                keys.extend(objects.wanting(connection, job.digest))
        except jobs.Fenced:
            return
        except TransientFailure as trouble:
            if trouble.reason == "DatabaseBusy":  # it may sleep with the lock in its hand
                self.executor.kill(job.worker or "")
            raise
        log.warning("lease lost", job=job.id, stage=job.stage, worker=job.worker, how=how)
        # after the commit: while the disk is full, a worker that only computes goes on
        self.executor.kill(job.worker or "")
        yield keys


def is_gone(job: JobHead, executor: Executor) -> bool:
    """Whether the process that runs the job is no more; then nobody can extend its lease."""
    return job.worker is None or not executor.is_alive(job.worker)


def is_silent(job: JobHead, now: float) -> bool:
    """Whether the lease is over."""
    return job.lease_expires_at is not None and job.lease_expires_at <= now


def take_back(
    connection: Any,
    job: JobHead,
    policy: RetryPolicy,
    now: float,
    how: str = "",
    *,
    if_expired: bool = False,
) -> list[Key]:
    """End a lost lease; return the objects to look at again. ``how`` the worker ended, if known.

    ``if_expired``: only if it is still over. Raises Fenced when it is not lost after all. An
    artifact that the worker managed to publish is found by the reconcile that follows.
    """
    again = jobs.lose(connection, job, how, now=now, policy=policy, if_expired=if_expired)
    message = f"{job.stage} job {job.id} lost its worker{f', which {how}' if how else ''}; " + (
        "it is queued again" if again else "it was lost too often and is given up"
    )
    events.record(connection, job.object, "Warning", "WorkerLost", message, now=now)
    return [job.object]
