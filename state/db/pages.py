"""Parts of long listings: the next objects of a kind, what many objects own, the namespaces."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    Integer,
    Row,
    Select,
    String,
    bindparam,
    cast,
    func,
    literal,
    select,
    tuple_,
)

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
_RECORDS = select(tables.objects)
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
    rows = _page(connection, _RECORDS, kind, namespace, after, rows_max)
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
    rows = _page(connection, query, kind, namespace, after, rows_max)
    return [ObjectText._make(row) for row in rows]


def _page(
    connection: Connection,
    query: Select[Any],
    kind: str,
    namespace: str | None,
    after: tuple[str, str] | None,
    rows_max: int,
) -> Sequence[Row[Any]]:
    statement = _paged(query, in_namespace=namespace is not None, behind=after is not None)
    place, name = after or ("", "")
    given = {"kind": kind, "place": namespace or place, "after": name, "rows_max": rows_max}
    return connection.execute(statement, given).all()


@cache
def _paged(query: Select[Any], *, in_namespace: bool, behind: bool) -> Select[Any]:
    """Return the statement of a page; made once: making it takes as long as some rows."""
    kind, place, after = (bindparam(name, type_=String) for name in ("kind", "place", "after"))
    query = query.where(_o.kind == kind).order_by(_o.namespace, _o.name)
    if in_namespace:
        query = query.where(_o.namespace == place)
        if behind:  # not as a pair: SQLite would read all that is before it
            query = query.where(_o.name > after)
    elif behind:
        query = query.where(tuple_(_o.namespace, _o.name) > tuple_(place, after))
    return query.limit(bindparam("rows_max", type_=Integer))


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
