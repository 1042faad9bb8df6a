"""Starting of jobs: the scheduler chooses, a claim makes it so, a worker gets the order."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace

import structlog

from loopscope.controller.clock import Clock
from loopscope.controller.jobs.executor import Executor
from loopscope.controller.jobs.limits import WINDOW_SECONDS, below_floor
from loopscope.controller.jobs.present import Present, present_order
from loopscope.controller.jobs.queue_snapshot import read_queue
from loopscope.controller.jobs.scheduling import (
    Decision,
    Place,
    QueueSnapshot,
    deciding,
    schedule,
)
from loopscope.controller.settings import Settings
from loopscope.specs.keys import Key
from loopscope.state import failpoints
from loopscope.state.db import (
    clock_repair,
    job_queue,
    job_ways,
    jobs,
    leader,
    objects,
    refusals,
    space_marks,
)
from loopscope.state.db.connection import Connection
from loopscope.state.db.knowledge import Knowledge, beside_jobs, knowledge
from loopscope.state.folder import StateFolder
from loopscope.state.orders import Order
from loopscope.state.records import JobHead
from loopscope.state.source_code import SourceCode, source_at_start

log = structlog.get_logger("controller")

Question = tuple[int, tuple[Place, ...], bool]
"""What decides whether a job may start, beside the time: the database, free places, low space.

While it stands, a thousand waiting jobs are not ranked again in every step.
"""


ROUNDING_SECONDS = 0.001
"""A date and the other clock may differ by as little; asking too early costs nothing."""


@dataclass
class _Look:
    """One reading of the queue, by which several jobs start."""

    queue: QueueSnapshot
    starts: list[float]
    """When jobs started in the last minute, with those of this look."""
    known: Knowledge | None = None
    """The state of the database right after the last start: nothing else has happened since."""
    may_go_on: bool = True

    @property
    def started(self) -> int:
        """How many jobs were started by it."""
        return len(self.starts) - len(self.queue.starts)


@dataclass
class Starter:
    """Starts what may start now."""

    state: StateFolder
    settings: Settings
    clock: Clock
    executor: Executor
    free_bytes: Callable[[], int]
    code: SourceCode = field(default_factory=source_at_start)
    """What workers are to be made of: the files as they were when this process started."""
    _next_start_at: float = 0.0
    _refused: Question | None = None
    _refused_until: float = 0.0
    _any_refused: bool = True
    """Another controller may have marked some, whose executor was another one."""
    _held: dict[int, Knowledge] = field(default_factory=dict)
    """Jobs that no object ordered any more; checked again when the database has changed."""

    def start_jobs(self) -> Iterator[list[Key]]:
        """Start jobs until none may; yield the objects to look at again, after each change."""
        while (yield from self._start_some()):
            pass

    def _start_some(self) -> Generator[list[Key], None, bool]:
        """Start jobs by one reading of the queue; return whether to read it again."""
        with self.state.database.read() as connection:
            pending = job_queue.any_pending(connection)
        if not pending:
            return False
        now = self._right_time()
        low, held = self._mark_low_space(now)
        yield held
        yield self._mark_refused(now)
        places = self.executor.places()
        question = (self.state.database.marker(), places, low is not None)
        if not places or (question == self._refused and self._still_refused()):
            return False
        with self.state.database.read() as connection:
            queue = read_queue(connection, self.settings, places, now, low_space=low)
            queue = self._without_held(connection, queue)
        look = _Look(queue, list(queue.starts))
        for chosen in deciding(queue):
            if chosen.place is None:
                continue
            if not (yield from self._start_chosen(chosen.job_id, chosen.place, look)):
                return look.may_go_on
            if look.started == len(places):
                return True  # of the others none need be decided about
        if look.started:
            return True
        decisions = schedule(queue)
        self._next_start_at = self.clock.elapsed() + _next_start_at(decisions) - now
        self._refused = question
        self._refused_until = self.clock.elapsed() + _asked_again_at(decisions) - now
        return False

    def _start_chosen(
        self, job_id: int, place: Place, look: _Look
    ) -> Generator[list[Key], None, bool]:
        """Start one job, if what the look rests on still holds; return whether that was done."""
        queue = look.queue
        with self.state.database.read() as connection:
            present = present_order(connection, job_id, queue.now)
            if not isinstance(present, Present):
                self._held[job_id] = knowledge(connection)
        if not isinstance(present, Present):
            yield present
            return False
        if look.known not in (None, present.known):
            return False  # something else happened since the last start
        memory = next(job.memory_bytes for job in queue.pending if job.id == job_id)
        worker = self.executor.free_worker(place, memory)
        if worker is None:
            self._next_start_at = self.clock.elapsed() + _next_start_at(schedule(queue)) - queue.now
            look.may_go_on = False
            return False
        return (yield from self._start(job_id, present, place, worker, look))

    def queue(self, connection: Connection) -> QueueSnapshot:
        """Return the queue as it stands, without the jobs that nobody orders any more."""
        low = below_floor(self.free_bytes(), self.settings.free_space_floor_bytes)
        places, now = self.executor.places(), self.clock.now()
        queue = read_queue(connection, self.settings, places, now, low_space=low)
        return self._without_held(connection, queue)

    def _without_held(self, connection: Connection, queue: QueueSnapshot) -> QueueSnapshot:
        """Leave out jobs that could not start when the database was in its present state."""
        if not self._held:
            return queue
        known = knowledge(connection)
        self._held = {job: then for job, then in self._held.items() if then == known}
        return replace(
            queue, pending=tuple(job for job in queue.pending if job.id not in self._held)
        )

    def _still_refused(self) -> bool:
        return self.clock.elapsed() + ROUNDING_SECONDS < self._refused_until

    def next_start_at(self) -> float | None:
        """Return when a job may start that waits for nothing else (``Clock.elapsed``), if known."""
        return self._next_start_at if self._next_start_at > self.clock.elapsed() else None

    def _start(
        self, job_id: int, present: Present, place: Place, worker: str, look: _Look
    ) -> Generator[list[Key], None, bool]:
        idle = [one.worker for one in look.queue.places if one.worker]
        since, lease_seconds = look.queue.now - WINDOW_SECONDS, self.settings.lease_seconds
        try:
            with self.state.database.write() as connection:
                if jobs.starts_since(connection, since) != look.starts:
                    return False  # another controller started a job meanwhile: count again
                clock = self.clock.reading()  # now, not before the write lock was waited for
                if clock_repair.is_due(connection, clock, self.settings.retry):
                    return False  # the clock was set meanwhile
                if beside_jobs(connection) != present.known:
                    return False  # the database changed meanwhile: ask again
                action, key = present.action, present.key
                job_ways.renew(connection, job_id, action, key, present.generation)
                job = jobs.claim(connection, job_id, worker, lease_seconds, now=clock.now)
                clock_repair.note(connection, clock)
                leader.note_worker(connection, worker, place.device, job.model, idle)
                keys = objects.wanting(connection, job.digest)
                if look.started + 1 < len(look.queue.places):  # else nobody asks
                    look.known = beside_jobs(connection)
        except jobs.Fenced:
            return False
        look.starts.append(clock.now)
        log.info(
            "job started",
            job=job.id, stage=job.stage, object=str(job.object), generation=job.generation,
            digest=job.digest[:12], worker=worker, device=place.device,
        )  # fmt: skip
        yield keys
        self._hand_over(job, worker)
        return True

    def _right_time(self) -> float:
        """Return the date, once the dates that it is compared with were put right."""
        clock, policy = self.clock.reading(), self.settings.retry
        with self.state.database.read() as connection:
            due = clock_repair.is_due(connection, clock, policy)
        if due:
            with self.state.database.write() as connection:
                clock_repair.put_right(connection, clock, policy)
        return clock.now

    def _mark_low_space(self, now: float) -> tuple[str | None, list[Key]]:
        """Return why nothing may start for lack of space, and the objects concerned.

        Marks the jobs that may not start.
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

    def _mark_refused(self, now: float) -> list[Key]:
        """Mark the jobs that no worker could hold; return the objects concerned."""
        if self.executor.refusal(sys.maxsize) is None and not self._any_refused:
            return []  # whatever the size: most executors
        with self.state.database.read() as connection:
            pending = read_queue(connection, self.settings, (), now).pending
            before = refusals.marked(connection)
        sizes = {job.id: job.memory_bytes for job in pending if not job.why or job.refusal}
        answers = {size: self.executor.refusal(size) for size in set(sizes.values())}
        why = {job: said for job, size in sizes.items() if (said := answers[size]) is not None}
        self._any_refused = bool(why)
        if why == before:
            return []
        with self.state.database.write() as connection:
            return refusals.mark(connection, why)

    def _hand_over(self, job: JobHead, worker: str) -> None:
        try:
            failpoints.reach("job-claimed")
            self.executor.start(worker, self._order(job), job.model)
        except Exception:
            with self.state.database.write() as connection:
                jobs.release(connection, job.id, job.token)
            raise

    def _order(self, job: JobHead) -> Order:
        code = self.code.of_stage(job.stage)
        return Order(job.id, job.token, job.stage, job.code_revision, code)


def _asked_again_at(decisions: list[Decision]) -> float:
    """Return when time alone may let one of these jobs start."""
    return min((d.wait.until for d in decisions if d.wait and d.wait.until), default=math.inf)


def _next_start_at(decisions: list[Decision]) -> float:
    """Return when the rate limit lets a job through that waits for nothing else, or 0."""
    waits = [one.wait for one in decisions if one.wait is not None]
    times = [one.until for one in waits if one.reason in ("RateLimit", "Backoff") and one.until]
    return min(times, default=0.0)
