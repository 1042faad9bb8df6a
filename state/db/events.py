"""Events: what happened to an object, deduplicated and counted."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import Connection, delete, func, select

from loopscope.specs.keys import Key
from loopscope.state import failpoints
from loopscope.state.db import tables
from loopscope.state.db.dialect.statements import upsert
from loopscope.state.records import EventRecord

EVENTS_KEPT = 5_000
"""Distinct events kept; the least recently seen go first."""
_SAME = (*Key._fields, "reason", "message")


def record(
    connection: Connection,
    key: Key,
    type_: Literal["Normal", "Warning"],
    reason: str,
    message: str,
    *,
    now: float,
) -> None:
    """Write an event, or count it when the same one was seen before."""
    seen = {
        **key._asdict(),
        "type": type_,
        "reason": reason,
        "message": message,
        "count": 1,
        "first_seen_at": now,
        "last_seen_at": now,
    }
    upsert(connection, tables.events, seen, key=_SAME, again=("last_seen_at",), counted="count")
    _keep_newest(connection)


def listed(connection: Connection, key: Key | None = None) -> list[EventRecord]:
    """Return events by last appearance, optionally of one object."""
    e = tables.events.c
    query = select(tables.events).order_by(e.last_seen_at, e.id)
    if key is not None:
        query = query.where(e.kind == key.kind, e.namespace == key.namespace, e.name == key.name)
    return [
        EventRecord(
            Key(row.kind, row.namespace, row.name),
            row.type,
            row.reason,
            row.message,
            row._mapping["count"],  # row.count is the tuple's method
            row.first_seen_at,
            row.last_seen_at,
        )
        for row in connection.execute(query)
    ]


def _keep_newest(connection: Connection) -> None:
    e = tables.events.c
    if connection.execute(select(func.count(e.id))).scalar_one() <= EVENTS_KEPT:
        return
    failpoints.reach("events-trim")
    oldest = select(e.id).order_by(e.last_seen_at).limit(EVENTS_KEPT // 10)
    connection.execute(delete(tables.events).where(e.id.in_(oldest)))
