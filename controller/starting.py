"""Starting jobs: the scheduler chooses, a claim makes it so, a worker gets the order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from loopscope.controller.clock import Clock
from loopscope.controller.executor import Executor
from loopscope.controller.limits import WINDOW_SECONDS, below_floor
from loopscope.controller.queue_snapshot import read_queue
from loopscope.controller.scheduling import Decision, Place, QueueSnapshot, next_start, schedule
from loopscope.controller.settings import Settings
from loopscope.specs.keys import Key
from loopscope.state import failpoints, job_queue, jobs, leader, objects, space_marks
from loopscope.state.folder import StateFolder
from loopscope.state.records import JobHead

log = structlog.get_logger("controller")

Question = tuple[int, tuple[Place, ...], bool]
"""What decides whether a job may start, beside the time: the database, free places, low space.

While it stands, a thousand waiting jobs are not ranked again in every step.
"""


@dataclass
class Starter:
    """Starts what may start now."""

    state: StateFolder
    settings: Settings
    clock: Clock
    executor: Executor
    free_bytes: Callable[[], int]
    start_not_before: float = 0.0
    """When the limit of job starts lets the next one through (Unix seconds)."""
    _refused: Question | None = None
    _refused_until: float = 0.0

    def start_jobs(self) -> Iterator[list[Key]]:
        """Start jobs until none may; yield the objects to look at again, after each change."""
        while True:
            now = self.clock.now()
            with self.state.database.read() as connection:
                pending = job_queue.any_pending(connection)
            if not pending:
                return
            low, held = self._mark_low_space(now)
            yield held
            places = self.executor.places()
            question = (self.state.database.marker(), places, low is not None)
            if not places or (question == self._refused and now < self._refused_until):
                return
            with self.state.database.read() as connection:
                queue = read_queue(connection, self.settings, places, now, low_space=low)
            decisions = schedule(queue)
            self.start_not_before = _next_start_at(decisions)
            chosen = next_start(decisions)
            if chosen is None or chosen.place is None:
                self._refused, self._refused_until = question, _asked_again_at(decisions)
                return
            worker = self.executor.free_worker(chosen.place)
            if worker is None:
                return
            yield from self._start(chosen.job_id, chosen.place, worker, queue)

    def _start(
        self, job_id: int, place: Place, worker: str, queue: QueueSnapshot
    ) -> Iterator[list[Key]]:
        now, idle = queue.now, [one.worker for one in queue.places if one.worker]
        try:
            with self.state.database.write() as connection:
                if jobs.starts_since(connection, now - WINDOW_SECONDS) != list(queue.starts):
                    return  # somebody else started a job meanwhile: count again
                job = jobs.claim(connection, job_id, worker, self.settings.lease_seconds, now=now)
                leader.note_worker(connection, worker, place.device, job.model, idle)
                keys = objects.wanting(connection, job.digest)
        except jobs.Fenced:
            return
        log.info(
            "job started",
            job=job.id, stage=job.stage, object=str(job.object), generation=job.generation,
            digest=job.digest[:12], worker=worker, device=place.device,
        )  # fmt: skip
        yield keys
        self._hand_over(job, worker)

    def _mark_low_space(self, now: float) -> tuple[str | None, list[Key]]:
        """Return why nothing may start for want of space, and whom that concerns.

        Jobs that may not start say so.
        """
        low = below_floor(self.free_bytes(), self.settings.free_space_floor_bytes)
        with self.state.database.read() as connection:
            changes = space_marks.marks_change(connection, low=low is not None, now=now)
        if not changes:
            return low, []
        with self.state.database.write() as connection:
            if low is not None:
                return low, space_marks.hold_back(connection, low, now=now)
            return None, space_marks.let_go(connection)

    def _hand_over(self, job: JobHead, worker: str) -> None:
        try:
            failpoints.reach("job-claimed")
            self.executor.start(worker, job.id, job.token, job.model)
        except Exception:
            with self.state.database.write() as connection:
                jobs.release(connection, job.id, job.token)
            raise


def _asked_again_at(decisions: list[Decision]) -> float:
    """Return when time alone may let one of these jobs start."""
    return min((d.wait.until for d in decisions if d.wait and d.wait.until), default=math.inf)


def _next_start_at(decisions: list[Decision]) -> float:
    """Return when the rate limit lets a job through that waits for nothing else, or 0."""
    waits = [one.wait for one in decisions if one.wait is not None]
    times = [one.until for one in waits if one.reason in ("RateLimit", "Backoff") and one.until]
    return min(times, default=0.0)
