"""Marks on jobs that are held back because the disk is nearly full."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, select, update

from loopscope.specs.keys import Key
from loopscope.state.db import tables
from loopscope.state.db.objects import wanting


def hold_back(connection: Connection, message: str, *, now: float) -> list[Key]:
    """Mark due jobs as ``LowDiskSpace``; return the objects that wait for them."""
    return _mark(connection, _unmarked(now), reason="LowDiskSpace", message=message)


def let_go(connection: Connection) -> list[Key]:
    """Take ``LowDiskSpace`` off the pending jobs; return the objects that wait for them."""
    return _mark(connection, _held(), reason=None, message=None)


def marks_change(connection: Connection, *, low: bool, now: float) -> bool:
    """Whether ``hold_back`` (when space is ``low``) or else ``let_go`` would mark a job."""
    query = select(tables.jobs.c.id).where(_unmarked(now) if low else _held()).limit(1)
    return connection.execute(query).first() is not None


def _unmarked(now: float) -> ColumnElement[bool]:
    j = tables.jobs.c  # a job that failed before keeps the reason that it is retried for
    return (j.state == "pending") & (j.not_before <= now) & j.reason.is_(None)


def _held() -> ColumnElement[bool]:
    return (tables.jobs.c.state == "pending") & (tables.jobs.c.reason == "LowDiskSpace")


def _mark(connection: Connection, which: ColumnElement[bool], **values: str | None) -> list[Key]:
    marked = update(tables.jobs).where(which).values(**values).returning(tables.jobs.c.digest)
    digests = set(connection.execute(marked).scalars())
    return [key for digest in sorted(digests) for key in wanting(connection, digest)]
