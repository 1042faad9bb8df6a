"""Objects that no other owns, a page at a time, and objects by what their status speaks of."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, String, cast, exists, func, or_, select

from loopscope.specs.keys import Key
from loopscope.specs.status import Status
from loopscope.state.db import tables
from loopscope.state.db.dialect.statements import items
from loopscope.state.db.objects import record_of
from loopscope.state.records import ObjectRecord

_o = tables.objects.c


def roots(
    connection: Connection,
    kind: str,
    *,
    after: tuple[str, str] | None = None,
    name_part: str = "",
    rows_max: int,
) -> list[ObjectRecord]:
    """Return the next objects of a kind that no other owns, in key order, behind a key.

    With ``name_part`` only those whose name holds it.
    """
    query = select(tables.objects).where(_o.owner_uid.is_(None), _o.kind == kind)
    if after is not None:
        namespace, name = after
        later = (_o.namespace == namespace) & (_o.name > name)
        query = query.where((_o.namespace > namespace) | later)
    if name_part:
        query = query.where(_o.name.contains(name_part, autoescape=True))
    query = query.order_by(_o.namespace, _o.name).limit(rows_max)
    return [record_of(row) for row in connection.execute(query)]


def of_uids(connection: Connection, uids: list[str]) -> list[ObjectRecord]:
    """Return the objects of these uids that are there, in key order."""
    query = select(tables.objects).where(_o.uid.in_(uids)).order_by(_o.kind, _o.namespace, _o.name)
    return [record_of(row) for row in connection.execute(query)]


def names_of_single(connection: Connection, namespace: str, rows_max: int) -> list[str]:
    """Return the experiments of a namespace that are no sweeps, whoever owns them, by name."""
    query = select(_o.name).where(_o.kind == "Experiment", _o.namespace == namespace)
    query = query.where(_o.spec["matrix"].as_string().is_(None)).order_by(_o.name)
    return list(connection.scalars(query.limit(rows_max)))


def statuses(connection: Connection, kind: str) -> list[tuple[Key, int, Status]]:
    """Return key, generation and status of all objects of a kind, without their specs."""
    query = select(_o.namespace, _o.name, _o.generation, _o.status).where(_o.kind == kind)
    return [
        (Key(kind, row.namespace, row.name), row.generation, Status.from_json(row.status))
        for row in connection.execute(query)
    ]


def speaking_of(
    connection: Connection, words: Sequence[str], *, rows_max: int | None = None
) -> list[ObjectRecord]:
    """Return objects in whose status one of some words stands, oldest first.

    Which of them are in the state that the word names is the caller's to look at: this only spares
    reading thousands of objects for a few.
    """
    text = cast(_o.status, String)
    query = select(tables.objects).where(or_(*(text.contains(f'"{word}"') for word in words)))
    query = query.order_by(_o.creation_timestamp, _o.kind, _o.namespace, _o.name).limit(rows_max)
    return [record_of(row) for row in connection.execute(query)]


def counted_by_ready(connection: Connection) -> dict[tuple[str, str], int]:
    """Return how many objects there are, by kind and by the status of their Ready condition.

    One that was not reconciled yet counts as Unknown.
    """
    ready = func.coalesce(_o.status[("conditions", 0, "status")].as_string(), "Unknown")
    query = select(_o.kind, ready.label("ready"), func.count()).group_by(_o.kind, "ready")
    return {(kind, status): int(number) for kind, status, number in connection.execute(query)}


def counted_stalled(connection: Connection) -> dict[str, int]:
    """Return how many objects need a human, by kind; one that was edited since does not count."""
    condition = items(_o.status, "conditions")
    of_type = condition.c.value["type"].as_string() == "Stalled"
    holds = condition.c.value["status"].as_string() == "True"
    query = (
        select(_o.kind, func.count())
        .where(
            _o.status["observedGeneration"].as_integer() == _o.generation,
            exists().select_from(condition).where(of_type, holds),
        )
        .group_by(_o.kind)
    )
    return {str(kind): int(number) for kind, number in connection.execute(query)}


def counted(connection: Connection) -> dict[str, int]:
    """Return how many objects of each kind there are."""
    query = select(_o.kind, func.count()).group_by(_o.kind)
    return {str(kind): int(number) for kind, number in connection.execute(query)}
