"""Present status of objects, where no controller is there to record it.

A status is what a controller observed. When it has ended, its jobs may have gone back to the queue,
have been cancelled, paused or retried, or have lost their worker: then every view shows an object
in the state of its job, in the words in which the next controller will. And an object that waits
for another one is shown with what that one is doing (``views.waiting``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from loopscope.state.db import leader, objects, pauses
from loopscope.state.db.connection import Connection
from loopscope.state.records import JobHead, ObjectRecord
from loopscope.state.workers import without_lost_worker


def is_controlled(connection: Connection) -> bool:
    """Whether a controller lives, so that what it wrote is true within a moment."""
    return leader.living(connection) is not None


def present(connection: Connection, records: Sequence[ObjectRecord]) -> list[ObjectRecord]:
    """Return the objects with the status that their jobs and what they own give them now."""
    if all(_stays(record) for record in records):
        return list(records)
    from loopscope.views.unattended import Unattended  # late: they bring all that plans
    from loopscope.views.waiting import with_reasons

    if is_controlled(connection):
        return with_reasons(records, partial(objects.get, connection))
    unattended = Unattended(connection, pauses.listed(connection))
    return with_reasons(unattended.of(records), unattended.get)


def _stays(record: ObjectRecord) -> bool:
    """Whether an object is as it was recorded, whatever became of its job."""
    return record.ready or record.status.observed_generation != record.generation


def present_jobs(connection: Connection, found: Sequence[JobHead]) -> list[JobHead]:
    """Return the jobs; one whose worker is gone counts as waiting, whatever state its row holds."""
    if not any(job.state == "running" for job in found) or is_controlled(connection):
        return list(found)
    return [without_lost_worker(job) for job in found]
