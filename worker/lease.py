"""The lease of a claimed job: heartbeats in a thread, progress from the stage."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

import structlog

from loopscope.state import failpoints
from loopscope.state.db import jobs
from loopscope.state.db.database import Database
from loopscope.state.db.jobs import Fenced
from loopscope.state.failures import PASSING, JobStopped, MadeRoom
from loopscope.state.records import Progress
from loopscope.state.retry_policy import RetryPolicy
from loopscope.worker.stop import StopRequest

log = structlog.get_logger("worker")

PROGRESS_SECONDS = 0.5
"""Progress is written at most this often, except when the phase changes."""
PROGRESS_TIMEOUT_SECONDS = 1800.0
"""A job that reports nothing for so long is stuck, however lively its heartbeat."""
EXIT_STUCK = 70


class Lease:
    """The right to run one job. As a context manager it keeps the heartbeat going."""

    def __init__(
        self,
        database: Database,
        job_id: int,
        token: int,
        lease_seconds: float,
        stop: StopRequest,
        *,
        progress_timeout_seconds: float = PROGRESS_TIMEOUT_SECONDS,
        end_process: Callable[[], None] = lambda: os._exit(EXIT_STUCK),
    ) -> None:
        self._database = database
        self._job_id = job_id
        self._token = token
        self._lease_seconds = lease_seconds
        self._stop = stop
        self._progress_timeout_seconds = progress_timeout_seconds
        self._end_process = end_process
        self._ended = threading.Event()
        self._fenced: Fenced | None = None
        self._asked_by: str | None = None
        self._seen = Progress(job_id, "Starting", 0, 1, "jobs", time.time(), time.time())
        self._alive_at = self._phase_began_at = time.monotonic()
        self._written_at = self._alive_at - PROGRESS_SECONDS
        self.may_finish: Callable[[float], bool] = lambda seconds: False
        """Whether something under way is worth finishing within the given seconds."""
        self.overruns: Callable[[float], bool] = lambda seconds: False
        """Whether something under way would take longer than the given seconds."""

    def __enter__(self) -> Lease:
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raise JobStopped when it is time to stop, Fenced when the job was taken away."""
        if self._fenced is not None:
            raise self._fenced
        if self._stop.asked:
            left = self._stop.seconds_to_finish
            if left <= 0 or not self.may_finish(left):
                raise JobStopped("the controller is gone or told the worker to stop")
        elif self.overruns(self._stop.seconds_left):
            self._stop.begin_for_lack_of_time()
            raise JobStopped("the next shard would end after the time that is left")

    def make_room(self) -> None:
        """Raise MadeRoom when another job asked for this one's slot. Call it between two shards."""
        if self._asked_by is not None:
            raise MadeRoom(f"makes room for {self._asked_by}")

    def progress(
        self, phase: str, done: int, total: int, unit: str, tokens: int | None = None
    ) -> None:
        """Report progress. Raises JobStopped on a stop request, Fenced if the job was taken away.

        Progress that cannot be written now is not worth a job.
        """
        self._alive_at = at = time.monotonic()
        self.check()
        same = phase == self._seen.phase
        self._phase_began_at = self._phase_began_at if same else at
        now = time.time()
        started_at = now - (at - self._phase_began_at)  # whatever the clock was set to meanwhile
        self._seen = Progress(self._job_id, phase, done, total, unit, started_at, now, tokens)
        if same and at < self._written_at + PROGRESS_SECONDS:
            return
        self._written_at = at
        self._write_progress()

    def _write_progress(self) -> None:
        with contextlib.suppress(*PASSING):
            failpoints.reach("progress")
            with self._database.write() as connection:
                jobs.report_progress(connection, self._job_id, self._token, self._seen)

    def wait(self, seconds: float) -> None:
        """Pause. Raises JobStopped on a stop request, Fenced if the job was taken away."""
        self._stop.wait(seconds)
        self.check()

    def _begin(self) -> None:
        """Say that the job starts: until torch is imported, nothing else speaks of it."""
        try:
            self._write_progress()
        except Fenced as fenced:
            self._fenced = fenced
        except Exception as error:  # the stage's own reports will tell
            log.warning("progress not written", job=self._job_id, error=str(error))

    def _beat(self) -> None:
        self._begin()
        while not self._ended.wait(self._lease_seconds / 6):
            try:
                failpoints.reach("heartbeat")
                if time.monotonic() > self._alive_at + self._progress_timeout_seconds:
                    self._give_up()
                    return
                with self._database.write() as connection:
                    self._asked_by = jobs.heartbeat(
                        connection, self._job_id, self._token, self._lease_seconds, now=time.time()
                    )
            except Fenced as fenced:
                self._fenced = fenced
                return
            except Exception as error:  # a full disk, a locked database: the next may succeed
                log.warning("heartbeat failed", job=self._job_id, error=str(error))

    def _give_up(self) -> None:
        """Fail a job that is stuck and end the process: nothing else stops a computation."""
        seen = self._seen
        message = (
            f"no progress for {self._progress_timeout_seconds:.0f} s in {seen.phase} "
            f"({seen.done} of {seen.total} {seen.unit}); the worker was ended. Look at its log; "
            "a smaller input may help"
        )
        log.error("job is stuck", job=self._job_id, message=message)
        try:
            with self._database.write() as connection:
                jobs.fail(
                    connection,
                    self._job_id,
                    self._token,
                    "NoProgress",
                    message,
                    transient=True,
                    now=time.time(),
                    policy=RetryPolicy(),
                )
        finally:
            self._end_process()
