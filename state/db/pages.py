"""Parts of long listings: the next objects of a kind, what many objects own, the namespaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, String, cast, func, literal, select, tuple_

from loopscope.specs.keys import Key
from loopscope.state.db import tables
from loopscope.state.db.objects import record_of
from loopscope.state.records import ObjectRecord, ObjectText

_UIDS_PER_STATEMENT = 500
_o = tables.objects.c
_BEFORE_SPEC = (_o.kind, _o.namespace, _o.name, _o.uid, _o.generation, _o.resource_version)
_BEHIND_SPEC = (
    *(cast(one, String) for one in (_o.status, _o.labels, _o.annotations, _o.finalizers)),
    *(_o.creation_timestamp, _o.deletion_timestamp),
    *(_o.owner_kind, _o.owner_name, _o.owner_uid, _o.wanted_digest),
)
_TEXTS = select(*_BEFORE_SPEC, cast(_o.spec, String), *_BEHIND_SPEC)
_WITHOUT_SPECS = select(*_BEFORE_SPEC, literal("{}"), *_BEHIND_SPEC)


def page(
    connection: Connection,
    kind: str,
    namespace: str | None,
    *,
    after: tuple[str, str] | None = None,
    rows_max: int,
) -> list[ObjectRecord]:
    """Return the next objects of a kind in key order, behind a namespace and name."""
    rows = connection.execute(
        _paged(select(tables.objects), kind, namespace, after).limit(rows_max)
    )
    return [record_of(row) for row in rows]


def of_keys(connection: Connection, wanted: Sequence[Key]) -> list[ObjectRecord]:
    """Return those of some hundred objects that exist, kind by kind."""
    names: dict[tuple[str, str], list[str]] = {}
    for key in wanted:
        names.setdefault((key.kind, key.namespace), []).append(key.name)
    found: list[ObjectRecord] = []
    for (kind, namespace), some in names.items():
        here = _o.kind == kind, _o.namespace == namespace, _o.name.in_(some)
        query = select(tables.objects).where(*here).order_by(_o.name)
        found.extend(record_of(row) for row in connection.execute(query))
    return found


def texts(
    connection: Connection,
    kind: str,
    namespace: str | None,
    *,
    after: tuple[str, str] | None = None,
    rows_max: int,
    with_specs: bool = True,
) -> list[ObjectText]:
    """Return the same as the text that is stored; without specs each of them is empty."""
    query = _TEXTS if with_specs else _WITHOUT_SPECS
    rows = connection.execute(_paged(query, kind, namespace, after).limit(rows_max)).all()
    return [
        ObjectText._make(
            (
                Key(*row[:3]),
                *row[3:13],
                Key(row[13], row[1], row[14]) if row[13] else None,
                *row[15:],
            )
        )
        for row in rows
    ]


def _paged(
    query: Select[Any], kind: str, namespace: str | None, after: tuple[str, str] | None
) -> Select[Any]:
    query = query.where(_o.kind == kind).order_by(_o.namespace, _o.name)
    if namespace is not None:
        query = query.where(_o.namespace == namespace)
        if after is not None:  # not as a pair: SQLite would read all that is before it
            query = query.where(_o.name > after[1])
    elif after is not None:
        query = query.where(tuple_(_o.namespace, _o.name) > tuple_(*after))
    return query


def owned_by_any(connection: Connection, uids: Sequence[str]) -> list[ObjectRecord]:
    """Return the objects that name one of the ``uids`` as their owner."""
    found: list[ObjectRecord] = []
    for start in range(0, len(uids), _UIDS_PER_STATEMENT):
        some = uids[start : start + _UIDS_PER_STATEMENT]
        query = select(tables.objects).where(_o.owner_uid.in_(some)).order_by(_o.kind, _o.name)
        found.extend(record_of(row) for row in connection.execute(query))
    return found


def namespaces(connection: Connection) -> list[tuple[str, float]]:
    """Return every namespace that holds an object, with the time of its first, by name."""
    first = func.min(_o.creation_timestamp)
    query = select(_o.namespace, first).group_by(_o.namespace).order_by(_o.namespace)
    return [(str(name), float(since)) for name, since in connection.execute(query)]
