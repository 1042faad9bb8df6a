"""Applied objects: their field manager, what the last apply asked for, and their files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from loopscope.specs.keys import Key
from loopscope.state.db import tables
from loopscope.state.records import AppliedRecord, SourceRecord, edition

_ROWS_PER_STATEMENT = 500


class Standing(NamedTuple):
    """An object that nobody owns, as far as it can be told without reading its spec."""

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


_SOURCES = "select path, fingerprint, named, objects from sources"
_STANDING = (
    "select kind, namespace, name, uid, generation, "
    "labels || annotations from objects where owner_uid is null"
)


def get(connection: Connection, key: Key, uid: str) -> AppliedRecord | None:
    """Return what the last apply asked for of the object with this uid, or None."""
    a = tables.applied.c
    query = select(tables.applied).where(
        a.kind == key.kind, a.namespace == key.namespace, a.name == key.name, a.uid == uid
    )
    row = connection.execute(query).first()
    return _record(row) if row else None


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
    values = {
        "uid": applied.uid,
        "manager": applied.manager,
        "fields": applied.fields,
        "labels": list(applied.labels),
        "annotations": list(applied.annotations),
    }
    connection.execute(
        insert(tables.applied)
        .values(**applied.key._asdict(), **values)
        .on_conflict_do_update(index_elements=list(Key._fields), set_=values)
    )


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
    rows = connection.exec_driver_sql(_SOURCES)
    return {row[0]: SourceRecord(*row) for row in rows}


def source(connection: Connection, path: str) -> SourceRecord | None:
    """Return how one file was when it was applied, if it was."""
    row = connection.exec_driver_sql(f"{_SOURCES} where path = ?", (path,)).first()
    return SourceRecord(*row) if row else None


def record_sources(connection: Connection, files: Iterable[SourceRecord]) -> None:
    """Write or replace how files were when they were applied."""
    rows = [file._asdict() for file in files]
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        statement = insert(tables.sources).values(rows[start : start + _ROWS_PER_STATEMENT])
        new = {name: statement.excluded[name] for name in SourceRecord._fields[1:]}
        connection.execute(statement.on_conflict_do_update(index_elements=["path"], set_=new))


def standing(connection: Connection) -> dict[Key, Standing]:
    """Return every object without an owner; cheap also for ten thousand of them."""
    rows = connection.exec_driver_sql(_STANDING)
    return {Key(*row[:3]): Standing(*row[3:]) for row in rows}


def standing_one(connection: Connection, key: Key) -> Standing | None:
    """Return one object without an owner."""
    where = f"{_STANDING} and kind = ? and namespace = ? and name = ?"
    row = connection.exec_driver_sql(where, tuple(key)).first()
    return Standing(*row[3:]) if row else None


def ready_roots(connection: Connection) -> set[Key]:
    """Return the objects without an owner that are Ready for their generation."""
    rows = connection.exec_driver_sql(
        "select kind, namespace, name from objects where owner_uid is null "
        "and json_extract(status, '$.observedGeneration') = generation "
        "and json_extract(status, '$.conditions[0].type') = 'Ready' "
        "and json_extract(status, '$.conditions[0].status') = 'True' "
        "and json_extract(status, '$.conditions[0].observedGeneration') = generation"
    )
    return {Key(*row) for row in rows}


def roots_of_older_rules(connection: Connection) -> set[Key]:
    """Return the objects without an owner that, or whose children, rest on work of older rules."""
    rows = connection.exec_driver_sql(
        "select kind, namespace, name from objects where owner_uid is null "
        "and exists (select 1 from json_each(objects.status, '$.conditions') "
        "where json_extract(value, '$.type') = 'RulesCurrent' "
        "and json_extract(value, '$.status') = 'False')"
    )
    return {Key(*row) for row in rows}


def wanted_work(connection: Connection) -> list[WantedWork]:
    """Return what each stage object wants to rest on, in key order."""
    rows = connection.exec_driver_sql(
        "select kind, namespace, name, coalesce(owner_uid, uid), wanted_digest, uid, generation, "
        "labels || annotations from objects where kind != 'Experiment' "
        "order by kind, namespace, name"
    )
    return [WantedWork(Key(*row[:3]), row[3], row[4], edition(*row[5:])) for row in rows]


def mark(connection: Connection, name: str) -> str | None:
    """Return a mark, or None."""
    query = select(tables.marks.c.value).where(tables.marks.c.name == name)
    return connection.execute(query).scalar()


def set_mark(connection: Connection, name: str, value: str) -> None:
    """Write or replace a mark."""
    statement = insert(tables.marks).values(name=name, value=value)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["name"], set_={"value": value})
    )


def _record(row: Any) -> AppliedRecord:
    return AppliedRecord(
        key=Key(row.kind, row.namespace, row.name),
        uid=row.uid,
        manager=row.manager,
        fields=row.fields,
        labels=tuple(row.labels),
        annotations=tuple(row.annotations),
    )
