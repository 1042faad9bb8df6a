"""Applied objects: their field manager, what the last apply asked for, and their files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, String, bindparam, cast, delete, exists, func, select

from loopscope.specs.keys import Key
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.state.db import tables
from loopscope.state.db.dialect.statements import items, upsert
from loopscope.state.records import AppliedRecord, SourceRecord, edition

_ROWS_PER_STATEMENT = 500


class Standing(NamedTuple):
    """An object without an owner, as far as that is known without reading its spec."""

    uid: str
    generation: int
    metadata: str
    """Labels and annotations as they are stored."""

    @property
    def edition(self) -> str:
        """What another edit makes another, and no status."""
        return edition(*self)


class WantedWork(NamedTuple):
    """What a stage object wants to rest on; ``root`` is the uid of its owner, or its own."""

    key: Key
    root: str
    digest: str | None
    edition: str


_o, _s, _a = tables.objects.c, tables.sources.c, tables.applied.c
_KEY = (_o.kind, _o.namespace, _o.name)
_METADATA = cast(_o.labels, String).concat(cast(_o.annotations, String))
_SOURCES = select(_s.path, _s.fingerprint, _s.named, _s.objects)
_SOURCE = _SOURCES.where(_s.path == bindparam("path"))
_STANDING = select(*_KEY, _o.uid, _o.generation, _METADATA).where(_o.owner_uid.is_(None))
_STANDING_ONE = _STANDING.where(*(_o[name] == bindparam(name) for name in Key._fields))
_FIRST = ("conditions", 0)
_READY_ROOTS = select(*_KEY).where(
    _o.owner_uid.is_(None),
    _o.status["observedGeneration"].as_integer() == _o.generation,
    _o.status[(*_FIRST, "type")].as_string() == "Ready",
    _o.status[(*_FIRST, "status")].as_string() == "True",
    _o.status[(*_FIRST, "observedGeneration")].as_integer() == _o.generation,
)
_condition = items(_o.status, "conditions")
_ROOTS_OF_OLDER_RULES = select(*_KEY).where(
    _o.owner_uid.is_(None),
    exists()
    .select_from(_condition)
    .where(
        _condition.c.value["type"].as_string() == "RulesCurrent",
        _condition.c.value["status"].as_string() == "False",
    ),
)
_OF_KIND = select(tables.applied).where(_a.kind == bindparam("kind"))
_BETWEEN = _OF_KIND.where(  # two comparisons: a collation does not fit into PostgreSQL's BETWEEN
    _a.namespace == bindparam("place"),
    _a.name >= bindparam("name"),
    _a.name <= bindparam("last_name"),
)
_IN_NAMESPACES = _OF_KIND.where(
    _a.namespace >= bindparam("place"), _a.namespace <= bindparam("last_place")
)
_WANTED_WORK = (
    select(
        *_KEY, func.coalesce(_o.owner_uid, _o.uid), _o.wanted_digest, _o.uid, _o.generation,
        _METADATA,
    )
    .where(_o.kind.not_in(OWNER_KINDS))
    .order_by(*_KEY)
)  # fmt: skip


def get(connection: Connection, key: Key, uid: str) -> AppliedRecord | None:
    """Return what the last apply asked for of the object with this uid, or None."""
    a = tables.applied.c
    query = select(tables.applied).where(
        a.kind == key.kind, a.namespace == key.namespace, a.name == key.name, a.uid == uid
    )
    row = connection.execute(query).first()
    return _record(row) if row else None


def of_uids(connection: Connection, uids: Sequence[str]) -> dict[str, AppliedRecord]:
    """Return what the last applies asked for of the objects with these uids, by uid."""
    found: dict[str, AppliedRecord] = {}
    for start in range(0, len(uids), _ROWS_PER_STATEMENT):
        some = uids[start : start + _ROWS_PER_STATEMENT]
        query = select(tables.applied).where(tables.applied.c.uid.in_(some))
        found |= {row.uid: _record(row) for row in connection.execute(query)}
    return found


def between(connection: Connection, first: Key, last: Key) -> dict[str, AppliedRecord]:
    """Return the same of all objects of a kind from one to another in key order, by uid.

    Where these are in two namespaces, of all objects in both and between: a few more.
    """
    query = _BETWEEN if first.namespace == last.namespace else _IN_NAMESPACES
    given = {"kind": first.kind, "place": first.namespace, "last_place": last.namespace}
    names = {"name": first.name, "last_name": last.name}
    return {row.uid: _record(row) for row in connection.execute(query, given | names)}


def of_manager(connection: Connection, manager: str) -> list[Key]:
    """Return the objects that ``manager`` applies, in key order."""
    a, o = tables.applied.c, tables.objects.c
    query = (
        select(a.kind, a.namespace, a.name)
        .join(tables.objects, o.uid == a.uid)
        .where(a.manager == manager)
        .order_by(a.kind, a.namespace, a.name)
    )
    return [Key(*row) for row in connection.execute(query)]


def record(connection: Connection, applied: AppliedRecord) -> None:
    """Write what an apply asked for, unless that is what is known already."""
    if get(connection, applied.key, applied.uid) == applied:
        return
    row = {
        **applied.key._asdict(),
        "uid": applied.uid,
        "manager": applied.manager,
        "fields": applied.fields,
        "labels": list(applied.labels),
        "annotations": list(applied.annotations),
    }
    upsert(connection, tables.applied, row)


def forget(connection: Connection, key: Key) -> None:
    """Remove what is known of an object that is deleted."""
    a = tables.applied.c
    connection.execute(
        delete(tables.applied).where(
            a.kind == key.kind, a.namespace == key.namespace, a.name == key.name
        )
    )


def sources(connection: Connection) -> dict[str, SourceRecord]:
    """Return the files that were applied, by path."""
    return {row[0]: SourceRecord(*row) for row in connection.execute(_SOURCES)}


def source(connection: Connection, path: str) -> SourceRecord | None:
    """Return how one file was when it was applied, if it was."""
    row = connection.execute(_SOURCE, {"path": path}).first()
    return SourceRecord(*row) if row else None


def record_sources(connection: Connection, files: Iterable[SourceRecord]) -> None:
    """Write or replace how files were when they were applied."""
    rows = [file._asdict() for file in files]
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        upsert(connection, tables.sources, *rows[start : start + _ROWS_PER_STATEMENT])


def standing(connection: Connection) -> dict[Key, Standing]:
    """Return every object without an owner; cheap also for ten thousand of them."""
    return {Key(*row[:3]): Standing(*row[3:]) for row in connection.execute(_STANDING)}


def standing_one(connection: Connection, key: Key) -> Standing | None:
    """Return one object without an owner."""
    row = connection.execute(_STANDING_ONE, key._asdict()).first()
    return Standing(*row[3:]) if row else None


def ready_roots(connection: Connection) -> set[Key]:
    """Return the objects without an owner that are Ready for their generation."""
    return {Key(*row) for row in connection.execute(_READY_ROOTS)}


def roots_of_older_rules(connection: Connection) -> set[Key]:
    """Return the objects without an owner that, or whose children, rest on work of older rules."""
    return {Key(*row) for row in connection.execute(_ROOTS_OF_OLDER_RULES)}


def wanted_work(connection: Connection) -> list[WantedWork]:
    """Return what each stage object wants to rest on, in key order."""
    rows = connection.execute(_WANTED_WORK)
    return [WantedWork(Key(*row[:3]), row[3], row[4], edition(*row[5:])) for row in rows]


def mark(connection: Connection, name: str) -> str | None:
    """Return a mark, or None."""
    query = select(tables.marks.c.value).where(tables.marks.c.name == name)
    return connection.execute(query).scalar()


def set_mark(connection: Connection, name: str, value: str) -> None:
    """Write or replace a mark."""
    upsert(connection, tables.marks, {"name": name, "value": value})


def drop_mark(connection: Connection, name: str) -> None:
    """Remove a mark, if it is there."""
    connection.execute(delete(tables.marks).where(tables.marks.c.name == name))


def _record(row: Row[Any]) -> AppliedRecord:
    return AppliedRecord(
        key=Key(row.kind, row.namespace, row.name),
        uid=row.uid,
        manager=row.manager,
        fields=row.fields,
        labels=tuple(row.labels),
        annotations=tuple(row.annotations),
    )
