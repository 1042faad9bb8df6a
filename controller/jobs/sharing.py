"""Sharing: several workers make the shards of one capture, which its own job then puts together.

A running job of a stage whose shards depend on no other gets shares, once it is known of which
kind its worker is: jobs of their own, with ranks, leases and tokens like any other. They publish
nothing. What is wanted and what is made stays one action with one job and one artifact, and that
job makes whatever no share has made: a share that waits, dies or fails costs time alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import structlog

from loopscope.controller.jobs.leases import LOOK_SECONDS
from loopscope.controller.jobs.scheduling import QueueSnapshot, RunningJob
from loopscope.controller.jobs.starting import Starter
from loopscope.specs.actions import SHAREABLE
from loopscope.state.db import jobs, shares
from loopscope.state.share import Share

log = structlog.get_logger("controller")

UNQUEUED = 0
"""The job of a share that has none yet."""


@dataclass(frozen=True)
class Change:
    """What becomes of the shares of a running job: new ones come, or the former ones end."""

    job_id: int
    token: int
    new: tuple[Share, ...] = ()
    end_former: bool = False


def changes(snapshot: QueueSnapshot) -> Iterator[Change]:
    """Yield what is to be done about the shares of the jobs that run.

    A job has shares of its worker's kind, and gets them once. When it began anew on another kind,
    nobody needs those of the former one any more.
    """
    for job in snapshot.running:
        if job.maker is None:
            continue
        former = any(one.maker != job.maker and not one.has_ended for one in job.shares)
        if former:
            yield Change(job.id, job.token, end_former=True)
        elif all(one.maker != job.maker for one in job.shares) and job.parallelism > 1:
            yield Change(job.id, job.token, _shares_of(job))


def _shares_of(job: RunningJob) -> tuple[Share, ...]:
    count = job.parallelism - 1
    return tuple(
        Share(UNQUEUED, job.id, number, count, job.maker or "", "")
        for number in range(1, count + 1)
    )


@dataclass
class Sharing:
    """Looks once a second which running jobs are to be shared."""

    starter: Starter
    _next_look_at: float = 0.0

    def look(self) -> None:
        """Queue the shares that are missing, and end those that nobody needs."""
        clock, database = self.starter.clock, self.starter.state.database
        if clock.elapsed() < self._next_look_at:
            return
        self._next_look_at = clock.elapsed() + LOOK_SECONDS
        with database.read() as connection:
            if not any(job.stage in SHAREABLE for job in jobs.running(connection)):
                return
            wanted = list(changes(self.starter.queue(connection)))
        for change in wanted:
            with contextlib.suppress(jobs.Fenced):  # it ended, or its worker died
                self._make(change, clock.now())

    def _make(self, change: Change, now: float) -> None:
        with self.starter.state.database.write() as connection:
            job = jobs.get(connection, change.job_id)
            if job is None or (job.state, job.token) != ("running", change.token):
                return
            if change.end_former:
                shares.end(connection, job.id, now=now)
            for share in change.new:
                own = replace(share, digest=job.digest)
                shares.add(connection, job, own, job.payload, now=now)
        log.info("job shared", job=change.job_id, shares=len(change.new))
