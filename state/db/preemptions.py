"""Preemption between shards: a running job is asked to make room, and gives its lease back."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, select

from loopscope.specs.keys import Key
from loopscope.state.db import events, jobs, tables
from loopscope.state.db.dialect.statements import upsert
from loopscope.state.records import PREEMPTED, JobHead, Preemption

_p = tables.preemptions.c
_ACTIVE = (
    select(_p.job_id, _p.by_job, _p.words, _p.asked_at)
    .join(tables.jobs, tables.jobs.c.id == _p.job_id)
    .where(tables.jobs.c.state.in_(jobs.ACTIVE))
)


def listed(connection: Connection) -> dict[int, Preemption]:
    """Return the pending and running jobs that make room for others, by id."""
    return {row.job_id: Preemption(*row) for row in connection.execute(_ACTIVE)}


def ask(
    connection: Connection,
    job_id: int,
    token: int,
    by_job: int,
    classes: tuple[str, str],
    *,
    now: float,
) -> list[Key]:
    """Ask the job that runs under ``token`` to make room; return the objects concerned.

    ``classes`` say by which right: the class of who asks, that of who is asked. Raises Fenced when
    the one does not run under that token any more, the other waits no more, or another one that
    runs was asked for it: no two stop for one.
    """
    asked, by = jobs.head(connection, job_id), jobs.head(connection, by_job)
    if asked is None or (asked.state, asked.token) != ("running", token):
        raise jobs.Fenced(f"job {job_id} does not run under token {token} any more")
    if by is None or by.state != "pending":
        raise jobs.Fenced(f"job {by_job} waits no more")
    for other in makers_of_room(connection, by_job) - {job_id}:
        found = jobs.head(connection, other)
        if found is not None and found.state == "running":
            raise jobs.Fenced(f"job {other} was asked to make room for job {by_job} already")
    higher, lower = classes
    words = f"{by.stage} job {by.id} of {by.object} ({higher} over {lower})"
    row = {"job_id": asked.id, "by_job": by.id, "words": words, "asked_at": now}
    upsert(connection, tables.preemptions, row)
    said = (
        f"{by.stage} job {by.id} ({higher}) asked {asked.stage} job {asked.id} of {asked.object} "
        f"({lower}) to make room after the shard under way"
    )
    events.record(connection, by.object, "Normal", "Preempting", said, now=now)
    return [asked.object, by.object]


def withdraw(connection: Connection, job_ids: Collection[int]) -> None:
    """Ask these jobs for nothing any more; forget the others that ended as well."""
    active = select(tables.jobs.c.id).where(tables.jobs.c.state.in_(jobs.ACTIVE))
    needless = _p.job_id.in_(job_ids) | _p.job_id.not_in(active)
    connection.execute(delete(tables.preemptions).where(needless))


def make_room(connection: Connection, job: JobHead, *, now: float) -> None:
    """Give the lease back between two shards: pending again, no attempt and no loss counted.

    That the try before ran out of memory stays written. Raises Fenced.
    """
    found = listed(connection).get(job.id)
    if found is None:  # nobody asks any more
        jobs.release(connection, job.id, job.token)
        return
    message = f"made room for {found.words}; goes on from its sealed shards"
    if job.reason is None:
        until = job.not_before
        jobs.postpone(connection, job.id, job.token, PREEMPTED, message, until=until)
    else:
        jobs.release(connection, job.id, job.token)
    said = f"{job.stage} job {job.id} {message}"
    events.record(connection, job.object, "Normal", PREEMPTED, said, now=now)


def makers_of_room(connection: Connection, job_id: int) -> set[int]:
    """Return the jobs that were asked to make room for this one, or made it."""
    return {one.job_id for one in listed(connection).values() if one.by_job == job_id}
