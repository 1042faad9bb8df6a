"""Reclaiming the leases of workers that died or fell silent; a running job is never adopted.

A worker that cannot write is not silent: while another process holds the write lock, its
heartbeats wait as the controller does. So silence counts only if it is still observed in the
transaction that takes the lease, and only if that transaction did not itself wait for the lock.
Where none can be begun, a silent worker may itself have been stopped with the lock in its hand; or
another process writes for long. So one is ended only once no process could write for a lease.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from loopscope.controller.clock import Clock
from loopscope.controller.jobs.executor import Executor
from loopscope.specs.keys import Key
from loopscope.state import failpoints
from loopscope.state.db import events, jobs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.db.database import Database
from loopscope.state.failures import Failure, TransientFailure
from loopscope.state.records import JobHead
from loopscope.state.retry_policy import RetryPolicy

log = structlog.get_logger("controller")

LOOK_SECONDS = 1.0
"""How often a controller looks."""
LOCK_WAIT_SECONDS = 0.5
"""Who waited longer than this for the write lock gives workers the time to write first."""
BEATS_PER_LEASE = 6
"""How often a worker renews its lease while that lasts."""


@dataclass
class LeaseWatch:
    """For how long each lease was not renewed, as far as this controller was there to see it.

    The database holds the expiry of a lease by the worker's wall clock, which may be set at any
    time: here it only distinguishes one renewal from the next. Time in which the controller did not
    look counts for one beat at most: what stopped it (for example a paused machine) stopped the
    worker, too.
    """

    clock: Clock
    lease_seconds: float
    _looked_at: float | None = None
    _silent: dict[tuple[int, int, float | None], float] = field(default_factory=dict)
    """Seconds by job, token and renewal."""

    def lost(self, running: list[JobHead], executor: Executor) -> list[JobHead]:
        """Return the running jobs whose worker is gone or was silent for as long as a lease."""
        now = self.clock.elapsed()
        passed = 0.0 if self._looked_at is None else now - self._looked_at
        counts = min(passed, max(self.lease_seconds / BEATS_PER_LEASE, 2 * LOOK_SECONDS))
        self._looked_at = now
        before = self._silent
        self._silent = {
            renewal: before[renewal] + counts if renewal in before else 0.0
            for renewal in map(_renewal, running)
        }
        return [
            job
            for job in running
            if is_gone(job, executor) or self._silent[_renewal(job)] >= self.lease_seconds
        ]


@dataclass
class Leases:
    """Looks once a second which leases are lost, and takes them back."""

    database: Database
    clock: Clock
    executor: Executor
    policy: RetryPolicy
    watch: LeaseWatch
    _next_look_at: float = 0.0
    _refused_at: float | None = None
    """When a lost lease could first not be taken because another process holds the write lock."""

    def check_at_once(self) -> None:
        """Let the next call look, however soon it comes."""
        self._next_look_at = 0.0

    def take_back_lost(self) -> Iterator[list[Key]]:
        """Take back what is lost, one by one; yield the objects to look at again."""
        now = self.clock.elapsed()
        if now < self._next_look_at:
            return
        self._next_look_at = now + LOOK_SECONDS
        with self.database.read() as connection:
            lost = self.watch.lost(jobs.running(connection), self.executor)
        try:
            for job in lost:
                yield from self._take_back(job)
        except TransientFailure as trouble:
            if trouble.reason == "DatabaseBusy":
                self._end_one_that_may_hold_the_lock(lost)
            raise
        self._refused_at = None

    def _take_back(self, job: JobHead) -> Iterator[list[Key]]:
        asked_at = self.clock.elapsed()
        failpoints.reach("lease-take-back")
        how = self.executor.how_it_ended(job.worker or "")
        try:
            with self.database.write() as connection:
                waited = self.clock.elapsed() - asked_at
                if waited > LOCK_WAIT_SECONDS and not is_gone(job, self.executor):
                    return  # its worker may have waited for the same lock
                keys = take_back(connection, job, self.policy, self.clock.now(), how)
                keys.extend(objects.wanting(connection, job.digest))
        except jobs.Fenced:
            return
        log.warning("lease lost", job=job.id, stage=job.stage, worker=job.worker, how=how)
        # after the commit: while the disk is full, a worker that only computes goes on
        self.executor.kill(job.worker or "")
        yield keys

    def _end_one_that_may_hold_the_lock(self, lost: list[JobHead]) -> None:
        now = self.clock.elapsed()
        if self._refused_at is None:
            self._refused_at = now
        if now - self._refused_at < self.watch.lease_seconds:
            return
        silent = next((job for job in lost if not is_gone(job, self.executor)), None)
        if silent is not None:
            log.warning("no process can write; ending a silent worker", worker=silent.worker)
            self.executor.kill(silent.worker or "")


def is_gone(job: JobHead, executor: Executor) -> bool:
    """Whether the process that runs the job is gone; then its lease cannot be extended any more."""
    return job.worker is None or not executor.is_alive(job.worker)


def take_back(
    connection: Connection, job: JobHead, policy: RetryPolicy, now: float, how: str = ""
) -> list[Key]:
    """End a lost lease; return the objects to look at again. ``how`` the worker ended, if known.

    An artifact that the worker managed to publish is found by the reconcile that follows. Raises
    Fenced for a lease that was renewed meanwhile.
    """
    again = jobs.lose(connection, job, how, now=now, policy=policy)
    message = f"{job.stage} job {job.id} lost its worker{f', which {how}' if how else ''}; " + (
        "it is queued again" if again else "it was lost too often and is given up"
    )
    events.record(connection, job.object, "Warning", "WorkerLost", message, now=now)
    return [job.object]


def give_back(database: Database, stopped: Sequence[str]) -> None:
    """Queue the jobs again that stopped workers did not give back in time: a stop is no loss."""
    try:
        with database.write() as connection:
            for job in jobs.running(connection):
                if job.worker in stopped:
                    jobs.release(connection, job.id, job.token)
    except (Failure, OSError) as trouble:  # also when another controller leads by now
        log.warning("jobs not given back; the next controller takes them", trouble=str(trouble))


def _renewal(job: JobHead) -> tuple[int, int, float | None]:
    return job.id, job.token, job.lease_expires_at
