"""Statements and column types that databases know under different names.

A kind is recognised by ``connection.dialect.name``; where no connection is at hand yet, by a
``compiles`` rule of SQLAlchemy or, for an index, by an option of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    String,
    Table,
    TableValuedAlias,
    UniqueConstraint,
    column,
    event,
    func,
    literal,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex
from sqlalchemy.sql.compiler import DDLCompiler, SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

Text = String().with_variant(sqlalchemy.Text(collation="C"), "postgresql")
"""Text that is ordered by code points, as Python orders it."""
_CONDITION = "only_where"
LONG = {"long": True}
"""The ``info`` of a text column that may be longer than an index of PostgreSQL takes."""


class _JsonItems(GenericFunction[Any]):
    """The items of the list under a name of a JSON document, one a row, as ``value``."""

    name = "loopscope_json_items"
    inherit_cache = True


@compiles(_JsonItems, "sqlite")
def _items_of_sqlite(element: _JsonItems, compiler: SQLCompiler, **how: Any) -> str:
    document, name = (compiler.process(part, **how) for part in element.clauses)
    return f"json_each({document}, '$.\"' || {name} || '\"')"


@compiles(_JsonItems, "postgresql")
def _items_of_postgresql(element: _JsonItems, compiler: SQLCompiler, **how: Any) -> str:
    document, name = (compiler.process(part, **how) for part in element.clauses)
    items = f"{document} -> {name}::text"
    return f"json_array_elements(case json_typeof({items}) when 'array' then {items} else '[]' end)"


def upsert(
    connection: Connection,
    table: Table,
    *rows: Mapping[str, object],
    key: Sequence[str] | None = None,
    again: Sequence[str] | None = None,
    counted: str | None = None,
) -> None:
    """Write rows of the same columns; a row whose key is there has its other columns replaced.

    The key is the primary key, or columns that are unique together. With ``again``, these columns
    are replaced in a row that is there, and no others; ``counted`` is one that is raised by one.
    """
    names = tuple(key if key is not None else table.primary_key.columns.keys())
    new = tuple(again if again is not None else (n for n in rows[0] if n not in names))
    dialect = connection.dialect.name
    connection.execute(_upsert(dialect, table, names, new, counted), list(rows))


@functools.cache
def _upsert(
    dialect: str, table: Table, key: tuple[str, ...], new: tuple[str, ...], counted: str | None
) -> sqlite.Insert | postgresql.Insert:
    """Return the statement, which is built once: that takes longer than running it."""
    statement = _insert(dialect, table)
    values: dict[str, ColumnElement[Any]] = {name: statement.excluded[name] for name in new}
    if counted is not None:
        values[counted] = table.c[counted] + 1
    known = [_indexed(dialect, table.c[name]) for name in key]
    return statement.on_conflict_do_update(index_elements=known, set_=values)


def insert_missing(connection: Connection, table: Table, row: Mapping[str, object]) -> bool:
    """Write a row unless one of its key is there; return whether it was written."""
    statement = _insert(connection.dialect.name, table).values(row).on_conflict_do_nothing()
    written = statement.returning(*table.primary_key.columns)  # a count is not always given
    return connection.execute(written).first() is not None


def items(document: ColumnElement[Any], name: str) -> TableValuedAlias:
    """Return the items of a list in a JSON column as rows with one JSON column, ``value``.

    A missing, null or empty list gives no row.
    """
    return _JsonItems(document, literal(name)).table_valued(column("value", JSON))


def unique_together(name: str, *columns: str) -> UniqueConstraint:
    """Return the constraint that these columns are unique together, long ones by their hash."""
    plain = UniqueConstraint(*columns, name=name).ddl_if(dialect="sqlite")

    def index(_constraint: object, table: Table) -> None:
        parts = (f"md5({c})" if table.c[c].info.get("long") else c for c in columns)
        made = f"create unique index {name} on {table.name} ({', '.join(parts)})"

        def create(_table: Table, connection: Connection, **_: object) -> None:
            if connection.dialect.name == "postgresql":
                connection.execute(text(made))

        event.listen(table, "after_create", create)

    event.listen(plain, "after_parent_attach", index)
    return plain


def only_where(condition: str) -> dict[str, Any]:
    """Return the options of an index that holds only the rows that fulfil a condition.

    By an option of its own: those of SQLAlchemy load the dialects that they are named after.
    """
    return {"info": {_CONDITION: condition}}


@compiles(CreateIndex)
def _create_index(element: CreateIndex, compiler: DDLCompiler, **how: Any) -> str:
    made: str = compiler.visit_create_index(element, **how)  # type: ignore[no-untyped-call]
    condition = element.element.info.get(_CONDITION)
    return f"{made} WHERE {condition}" if condition else made


def lease_holder(connection: Connection) -> str | None:
    """Return the process whose lease on leading is good; None where the database keeps none."""
    if connection.dialect.name != "postgresql":
        return None
    from loopscope.state.db.dialect.postgresql.leadership import ALIVE  # late: it needs the driver

    return connection.execute(text(ALIVE)).scalar()


def _indexed(dialect: str, column: ColumnElement[Any]) -> ColumnElement[Any]:
    is_hashed = dialect == "postgresql" and column.info.get("long")
    return func.md5(column) if is_hashed else column


def _insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # late: a short command needs but one of them

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)
