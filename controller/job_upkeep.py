"""What happens to jobs beside being started: those nobody wants end, those for a device return."""

from __future__ import annotations

from loopscope.controller.clock import Clock
from loopscope.state import events, failpoints, jobs, objects
from loopscope.state.database import Database


def retry_failed_for(database: Database, device: str, clock: Clock) -> None:
    """Put wanted jobs that failed for want of a device back into the queue: it may be here now."""
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
    """Cancel the active jobs whose digest no object wants any more."""
    with database.read() as connection:
        active = jobs.active_digests(connection)
        wanted = objects.wanted_digests(connection) if active else set()
    for job_id, digest in active.items():
        if digest in wanted:
            continue
        failpoints.reach("job-cancel")
        with database.write() as connection:
            job = jobs.head(connection, job_id)
            if job is None or digest in objects.wanted_digests(connection):
                continue
            message = f"{job.stage} job {job.id} is no longer wanted"
            now = clock.now()
            if jobs.cancel(connection, job.id, "Superseded", message, now=now):
                events.record(connection, job.object, "Normal", "Superseded", message, now=now)
