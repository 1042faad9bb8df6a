"""Shares of jobs: who makes shards of whose action. A share ends, at the latest, with its job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from loopscope.state.db import jobs, tables
from loopscope.state.records import JobHead
from loopscope.state.share import Share

_s, _j, _w = tables.shares.c, tables.jobs.c, tables.workers.c
_own = tables.jobs.alias("own")
_SHARE = (
    select(_s.job_id, _s.of_job, _s.number, _s.count, _s.maker, _j.digest, _own.c.state)
    .join(tables.jobs, _j.id == _s.of_job)
    .join(_own, _own.c.id == _s.job_id)
)
_BY_JOB = _SHARE.where(_s.job_id == bindparam("job"))
_OF_JOB = _SHARE.where(_s.of_job == bindparam("job")).order_by(_s.job_id)
_ALL = _SHARE.order_by(_s.job_id)
_OF_ACTIVE = _ALL.where(_j.state.in_(jobs.ACTIVE))
"""Built once: each start of a job reads the queue."""


def get(connection: Connection, job_id: int) -> Share | None:
    """Return which share a job is; None for one that makes an artifact of its own."""
    row = connection.execute(_BY_JOB, {"job": job_id}).first()
    return _share(row) if row else None


def of_job(connection: Connection, job_id: int) -> list[Share]:
    """Return the shares of a job, ended ones among them, oldest first."""
    return [_share(row) for row in connection.execute(_OF_JOB, {"job": job_id})]


def listed(connection: Connection, *, ended: bool = False) -> dict[int, Share]:
    """Return the shares of the pending and running jobs, by their own id, ended ones as well.

    With ``ended`` those of ended jobs, too.
    """
    found = connection.execute(_ALL if ended else _OF_ACTIVE)
    return {row.job_id: _share(row) for row in found}


def add(
    connection: Connection,
    job: JobHead,
    share: Share,
    payload: Mapping[str, object],
    *,
    now: float,
) -> int:
    """Queue a share of the job that runs under ``job.token``; return the id of its own job.

    ``share`` knows none yet. Raises Fenced.
    """
    held = jobs.head(connection, job.id)
    if held is None or (held.state, held.token) != ("running", job.token):
        raise jobs.Fenced(f"job {job.id} does not run under token {job.token} any more")
    action = share.action(job.stage, payload)
    added, is_new = jobs.enqueue(connection, action, job.object, job.generation, now=now)
    if is_new:
        row = {"number": share.number, "count": share.count, "maker": share.maker}
        connection.execute(insert(tables.shares).values(job_id=added, of_job=job.id, **row))
    return added


def end(connection: Connection, job_id: int, *, now: float) -> None:
    """Cancel what is left of a job's shares: their job is done, or goes on on another kind."""
    for share in of_job(connection, job_id):
        words = f"job {job_id} needs it no more"
        jobs.cancel(connection, share.job_id, "Superseded", words, now=now)


def note_maker(connection: Connection, worker: str, maker: str) -> None:
    """Record of which kind a worker is."""
    connection.execute(update(tables.workers).where(_w.name == worker).values(maker=maker))


def maker_of(connection: Connection, worker: str) -> str | None:
    """Return of which kind a worker is, None while that is not known."""
    found: str | None = connection.execute(select(_w.maker).where(_w.name == worker)).scalar()
    return found


def _share(row: Row[*tuple[Any, ...]]) -> Share:
    job_id, of_job, number, count, maker, digest, state = row
    return Share(job_id, of_job, number, count, maker, digest, state not in jobs.ACTIVE)
