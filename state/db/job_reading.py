"""Reads of the job queue, without payloads except for the worker that runs the job."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select

from loopscope.specs.keys import Key
from loopscope.state.db import tables
from loopscope.state.records import JobHead, JobRecord, Progress

ACTIVE = ("pending", "running")
_j = tables.jobs.c
HEAD_COLUMNS = (
    _j.id, _j.stage, _j.digest, _j.state, _j.kind, _j.namespace, _j.name, _j.generation,
    _j.attempts, _j.losses, _j.not_before, _j.created_at, _j.started_at, _j.finished_at, _j.token,
    _j.worker, _j.lease_expires_at, _j.reason, _j.message, _j.model, _j.code_revision, _j.way,
)  # fmt: skip
_HEAD = select(*HEAD_COLUMNS)
_ALL = _HEAD.order_by(_j.id)
_BY_ID = select(tables.jobs).where(_j.id == bindparam("id"))
_HEAD_BY_ID = _HEAD.where(_j.id == bindparam("id"))
_OF_DIGEST = _HEAD.where(_j.digest == bindparam("digest"))
_LATEST = _OF_DIGEST.order_by(_j.id.desc()).limit(1)
_NEWEST_FIRST = _OF_DIGEST.order_by(_j.id.desc())
_ACTIVE_OF = _OF_DIGEST.where(_j.state.in_(ACTIVE))
_ALL_ACTIVE = _ALL.where(_j.state.in_(ACTIVE))
_RUNNING = _ALL.where(_j.state == "running")
_ACTIVE_INPUTS = select(_j.inputs).where(_j.state.in_(ACTIVE), _j.inputs.is_not(None))
_this = tables.jobs.alias("this").c
_PASSES = select(_this.passes).where(_this.id == bindparam("id")).scalar_subquery()
_s = tables.shares.c
_HELPED = select(_s.of_job).where(_s.job_id == bindparam("id"))
_SERVED_BY = (
    select(_j.id)
    .where(_j.state == "pending", _j.id != bindparam("id"), _j.passes == _PASSES)
    .where(_j.id.not_in(select(_s.job_id)), _j.id.not_in(_HELPED))
    .order_by(_j.id)
)
_ACTIVE_DIGESTS = select(_j.id, _j.digest).where(_j.state.in_(ACTIVE))
"""Built once: these are read in every step."""


def get(connection: Connection, job_id: int) -> JobRecord | None:
    """Return one job with its payload, or None. For its worker; all others read its head."""
    row = connection.execute(_BY_ID, {"id": job_id}).first()
    return JobRecord(**vars(head_in(row)), payload=row.payload) if row else None


def head(connection: Connection, job_id: int) -> JobHead | None:
    """Return one job without its payload, or None."""
    row = connection.execute(_HEAD_BY_ID, {"id": job_id}).first()
    return head_in(row) if row else None


def find_active(connection: Connection, digest: str) -> JobHead | None:
    """Return the pending or running job of a digest; there is at most one."""
    row = connection.execute(_ACTIVE_OF, {"digest": digest}).first()
    return head_in(row) if row else None


def find_latest(connection: Connection, digest: str) -> JobHead | None:
    """Return the newest job of a digest in whatever state."""
    row = connection.execute(_LATEST, {"digest": digest}).first()
    return head_in(row) if row else None


def succeeded(connection: Connection, key: Key) -> Iterator[JobRecord]:
    """Yield what was made for an object, oldest first, with the payloads."""
    own = (_j.kind == key.kind, _j.namespace == key.namespace, _j.name == key.name)
    asked = select(tables.jobs).where(_j.state == "succeeded", *own).order_by(_j.id)
    for row in connection.execute(asked):
        yield JobRecord(**vars(head_in(row)), payload=row.payload)


def of_digest(connection: Connection, digest: str) -> Iterator[JobHead]:
    """Yield the jobs of a digest, newest first."""
    for row in connection.execute(_NEWEST_FIRST, {"digest": digest}):
        yield head_in(row)


def latest_of(connection: Connection, digests: Collection[str]) -> dict[str, JobHead]:
    """Return the newest job of each digest that has one."""
    newest = select(func.max(_j.id)).where(_j.digest.in_(digests)).group_by(_j.digest)
    found = connection.execute(_HEAD.where(_j.id.in_(newest)))
    return {row.digest: head_in(row) for row in found}


def listed(connection: Connection, *, ended: bool = False) -> list[JobHead]:
    """Return active jobs, or with ``ended`` all jobs, by id."""
    query = _ALL if ended else _ALL_ACTIVE
    return [head_in(row) for row in connection.execute(query)]


def active_digests(connection: Connection) -> dict[int, str]:
    """Return the digest of each pending or running job, by id."""
    return {row.id: row.digest for row in connection.execute(_ACTIVE_DIGESTS)}


def active_inputs(connection: Connection) -> set[str]:
    """Return the digests of the artifacts that the pending and running jobs read."""
    return {digest for found in connection.execute(_ACTIVE_INPUTS).scalars() for digest in found}


def served_by(connection: Connection, job: JobHead) -> list[int]:
    """Return the pending jobs for which the model sees what it sees for ``job``, oldest first."""
    return [int(job_id) for job_id in connection.execute(_SERVED_BY, {"id": job.id}).scalars()]


def failed_with(connection: Connection, reason: str) -> list[JobHead]:
    """Return the jobs that failed for ``reason`` and that no newer job of their digest followed."""
    newest = {job.digest: job for job in listed(connection, ended=True)}
    return [job for job in newest.values() if (job.state, job.reason) == ("failed", reason)]


def running(connection: Connection) -> list[JobHead]:
    """Return the running jobs by id."""
    return [head_in(row) for row in connection.execute(_RUNNING)]


def starts_since(connection: Connection, since: float) -> list[float]:
    """Return the times of job starts after ``since``, oldest first; the rate limit's memory."""
    s = tables.job_starts.c
    query = select(s.started_at).where(s.started_at > since).order_by(s.started_at)
    return [float(value) for value in connection.execute(query).scalars()]


def progress_of(connection: Connection) -> dict[int, Progress]:
    """Return the newest progress of the running jobs, by job id."""
    query = select(tables.progress).where(
        tables.progress.c.job_id.in_(
            select(tables.jobs.c.id).where(tables.jobs.c.state == "running")
        )
    )
    return {row.job_id: Progress(*row) for row in connection.execute(query)}


def head_in(row: Row[*tuple[Any, ...]]) -> JobHead:
    """Return the job of a row of ``HEAD_COLUMNS``."""
    key = Key(row.kind, row.namespace, row.name)
    return JobHead(object=key, **{name: getattr(row, name) for name in _PLAIN})


_PLAIN = tuple(name for name in JobHead.__dataclass_fields__ if name != "object")
