"""The leader's record of itself and its workers, for ``loopscope queue``."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, delete, select

from loopscope.state.db import tables
from loopscope.state.db.dialect.statements import lease_holder, upsert
from loopscope.state.db.objects import raise_counter
from loopscope.state.processes import process_exists
from loopscope.state.records import LeaderRecord, WorkerRecord

_NAME = "leader"


def announce(
    connection: Connection, process: str, settings: Mapping[str, object], *, now: float
) -> LeaderRecord | None:
    """Record the process that leads from now on, with its own workers; return the one before."""
    before = get(connection)
    row = {"name": _NAME, "process": process, "started_at": now, "settings": settings}
    upsert(connection, tables.controllers, row)
    connection.execute(delete(tables.workers))
    return before


def number(connection: Connection) -> int:
    """Return a number for a controller that is higher than that of any before it."""
    return raise_counter(connection, "fencing_token")


def get(connection: Connection) -> LeaderRecord | None:
    """Return the leader, or the last one; None if there was never one."""
    row = connection.execute(select(tables.controllers)).first()
    return LeaderRecord(row.process, row.started_at, row.settings) if row else None


def living(connection: Connection) -> LeaderRecord | None:
    """Return the leader, if its process lives, or its lease where it may be on another machine."""
    found = get(connection)
    if found is None:
        return None
    lives = lease_holder(connection) == found.process or process_exists(found.process)
    return found if lives else None


def note_worker(
    connection: Connection, name: str, device: str, model: str | None, idle: Collection[str] = ()
) -> None:
    """Record where a worker computes; a job without a model leaves it the one that it has.

    Workers that neither run a job nor are among the ``idle`` ones are forgotten.
    """
    held = {"model": model} if model is not None else {}
    upsert(connection, tables.workers, {"name": name, "device": device, **held})
    busy = select(tables.jobs.c.worker).where(tables.jobs.c.state == "running")
    w = tables.workers.c.name
    connection.execute(delete(tables.workers).where(w.not_in([name, *idle]), w.not_in(busy)))


def workers(connection: Connection) -> dict[str, WorkerRecord]:
    """Return the workers that were given a job by the last controller, by name."""
    return {
        row.name: WorkerRecord(row.name, row.device, row.model, row.maker)
        for row in connection.execute(select(tables.workers).order_by(tables.workers.c.name))
    }
