"""Keeping a claimed job: heartbeats in a thread, progress from the stage."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType

import structlog

from state import failpoints, jobs
from state.database import Database
from state.failures import PASSING, JobStopped
from state.jobs import Fenced
from state.records import Progress

log = structlog.get_logger("worker")

PROGRESS_SECONDS = 0.5
"""Progress is written at most this often, except when the phase changes."""


class Lease:
    """The right to run one job. As a context manager it keeps the heartbeat going."""

    def __init__(
        self,
        database: Database,
        job_id: int,
        token: int,
        lease_seconds: float,
        stop: threading.Event,
    ) -> None:
        self._database = database
        self._job_id = job_id
        self._token = token
        self._lease_seconds = lease_seconds
        self._stop = stop
        self._ended = threading.Event()
        self._fenced: Fenced | None = None
        self._phase = ""
        self._phase_started_at = 0.0
        self._written_at = 0.0

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
        """Raise JobStopped when told to stop, Fenced when the job was taken away."""
        if self._fenced is not None:
            raise self._fenced
        if self._stop.is_set():
            raise JobStopped("the controller is gone or told the worker to stop")

    def progress(self, phase: str, done: int, total: int, unit: str) -> None:
        """Report progress. Raises JobStopped when told to stop, Fenced when taken away.

        Progress that cannot be written now is not worth a job.
        """
        self.check()
        now = time.time()
        if phase != self._phase:
            self._phase, self._phase_started_at = phase, now
        elif now < self._written_at + PROGRESS_SECONDS:
            return
        self._written_at = now
        seen = Progress(self._job_id, phase, done, total, unit, self._phase_started_at, now)
        with contextlib.suppress(*PASSING):
            failpoints.reach("progress")
            with self._database.write() as connection:
                jobs.report_progress(connection, self._job_id, self._token, seen)

    def wait(self, seconds: float) -> None:
        """Pause. Raises JobStopped when told to stop, Fenced when taken away."""
        self._stop.wait(seconds)
        self.check()

    def _beat(self) -> None:
        while not self._ended.wait(self._lease_seconds / 6):
            try:
                failpoints.reach("heartbeat")
                with self._database.write() as connection:
                    jobs.heartbeat(
                        connection, self._job_id, self._token, self._lease_seconds, now=time.time()
                    )
            except Fenced as fenced:
                self._fenced = fenced
                return
            except Exception as error:  # the next beat may succeed; without any, the lease ends
                log.warning("heartbeat failed", job=self._job_id, why=str(error))
