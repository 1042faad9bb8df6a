"""Leases whose worker died or fell silent are taken back; nobody adopts a running job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from loopscope.controller.clock import Clock
from loopscope.controller.executor import Executor
from loopscope.specs.keys import Key
from loopscope.state import events, jobs
from loopscope.state.records import JobRecord
from loopscope.state.retry_policy import RetryPolicy

LOOK_SECONDS = 1.0
"""How often a controller looks."""
BEATS_PER_LEASE = 6
"""How often a worker renews its lease while that lasts."""


@dataclass
class LeaseWatch:
    """For how long each lease was not renewed, as far as this controller was there to see it.

    When a lease expires stands in the database by the wall clock of the worker, which anybody may
    set: here it only tells one renewal from the next. Time in which the controller did not look
    counts for one beat at most: what stopped it (a paused machine, say) stopped the worker, too.
    """

    clock: Clock
    lease_seconds: float
    _looked_at: float | None = None
    _silent: dict[tuple[int, int, float | None], float] = field(default_factory=dict)
    """Seconds by job, token and renewal."""

    def lost(self, running: list[JobRecord], executor: Executor) -> list[JobRecord]:
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
            if job.worker is None
            or not executor.is_alive(job.worker)
            or self._silent[_renewal(job)] >= self.lease_seconds
        ]


def take_back(
    connection: Any, job: JobRecord, policy: RetryPolicy, now: float, how: str = ""
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


def _renewal(job: JobRecord) -> tuple[int, int, float | None]:
    return job.id, job.token, job.lease_expires_at
