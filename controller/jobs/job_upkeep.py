"""Upkeep of jobs: cancelling unwanted ones, retrying those that waited for a device."""

from __future__ import annotations

import structlog

from loopscope.controller.clock import Clock
from loopscope.state import failpoints
from loopscope.state.db import events, job_queue, job_ways, jobs, objects
from loopscope.state.db.database import Database
from loopscope.state.records import CODE_CHANGED, JobHead

log = structlog.get_logger("controller")

CANCELLED_PER_CALL = 32
"""Each rewrites a row with a long payload: a thousand of them would take too long for one step."""


def report_end(database: Database, job: JobHead, clock: Clock) -> None:
    """Log that a worker is done with a job; if it refused to begin, record an event as well."""
    log.info("job ended", job=job.id, stage=job.stage, state=job.state)
    if job.state == "pending" and job.reason == CODE_CHANGED:
        log.error("restart this controller", job=job.id, stage=job.stage, why=job.message)
        with database.write() as connection:
            message, now = job.message or CODE_CHANGED, clock.now()
            events.record(connection, job.object, "Warning", CODE_CHANGED, message, now=now)


def retry_after_restart(database: Database, device: str, clock: Clock) -> None:
    """Let jobs start that failed for lack of a device, or that workers of other code refused."""
    _retry_failed_for(database, device, clock)
    with database.read() as connection:
        refused = job_ways.any_refused(connection)
    if refused:
        with database.write() as connection:
            job_ways.let_refused_go(connection, now=clock.now())


def _retry_failed_for(database: Database, device: str, clock: Clock) -> None:
    """Requeue wanted jobs that failed for lack of a device: it may be here now."""
    with database.read() as connection:
        failed = jobs.failed_with(connection, "DeviceUnavailable")
        wanted = objects.wanted_digests(connection) if failed else set()
    for job in failed:
        if job.digest not in wanted:
            continue
        with database.write() as connection:
            now = clock.now()
            message = f"{job.stage} job {job.id} is tried on {device}"
            jobs.retry(connection, job.id, now=now)
            events.record(connection, job.object, "Normal", "Retried", message, now=now)


def cancel_unwanted(database: Database, clock: Clock) -> None:
    """Cancel the active jobs whose digest no object wants any more, a limited number a call."""
    with database.read() as connection:
        if not job_queue.unwanted(connection):
            return
    failpoints.reach("job-cancel")
    with database.write() as connection:
        now = clock.now()
        for job in job_queue.unwanted(connection)[:CANCELLED_PER_CALL]:
            message = f"{job.stage} job {job.id} is no longer wanted"
            if jobs.cancel(connection, job.id, "Superseded", message, now=now):
                events.record(connection, job.object, "Normal", "Superseded", message, now=now)
