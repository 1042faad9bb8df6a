"""Statements that databases know under different names.

A second kind is recognised by ``connection.dialect.name``; where no connection is at hand yet, by a
``compiles`` rule of SQLAlchemy or, for an index, by an option of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Table,
    TableValuedAlias,
    column,
    func,
    text,
)
from sqlalchemy.dialects.sqlite import insert


def upsert(
    connection: Connection,
    table: Table,
    *rows: Mapping[str, object],
    key: Sequence[str] | None = None,
    again: Mapping[str, object] | None = None,
) -> None:
    """Write rows of the same columns; a row whose key is there has its other columns replaced.

    The key is the primary key, or columns that are unique together. With ``again``, these values
    are set in a row that is there, and nothing else.
    """
    names = list(key if key is not None else table.primary_key.columns.keys())
    statement, new = insert(table).values(rows[0]), rows[0]
    if len(rows) > 1:
        statement = insert(table).values(list(rows))
        new = {name: statement.excluded[name] for name in rows[0]}
    new = again or {name: value for name, value in new.items() if name not in names}
    connection.execute(statement.on_conflict_do_update(index_elements=names, set_=new))


def insert_missing(connection: Connection, table: Table, row: Mapping[str, object]) -> bool:
    """Write a row unless one of its key is there; return whether it was written."""
    statement = insert(table).values(row).on_conflict_do_nothing()
    return bool(connection.execute(statement).rowcount)


def items(document: ColumnElement[Any], name: str) -> TableValuedAlias:
    """Return the items of a list in a JSON column as rows with one JSON column, ``value``.

    A missing, null or empty list gives no row.
    """
    return func.json_each(document, f'$."{name}"').table_valued(column("value", JSON))


def only_where(condition: str) -> dict[str, Any]:
    """Return the options of an index that holds only the rows that fulfil a condition."""
    return {"sqlite_where": text(condition)}
