"""The rows of a state as one SQLite file, and back: a copy needs no server to be read.

So a snapshot of one kind of database is restored into another.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from loopscope.state.db import tables
from loopscope.state.db.database import Database, make_tables
from loopscope.state.db.dialect.sqlite.connections import engine_of
from loopscope.state.db.dialect.sqlite.file import SqliteFile

ROWS_AT_ONCE = 1000


class RowsInSqlite:
    """Files that hold all rows of a state."""

    def write_file(self, source: Connection, path: Path) -> None:
        """Write every row that a transaction sees into a new file, with the schema's revision."""
        engine = engine_of(path, patience_seconds=60.0)
        try:
            with engine.connect() as target:
                target.exec_driver_sql("BEGIN IMMEDIATE")
                make_tables(target)
                _copy(source, target)
                target.commit()
            with engine.connect() as target:
                target.exec_driver_sql("PRAGMA journal_mode=DELETE")  # no log beside it
        finally:
            engine.dispose()

    def read_file(self, path: Path, target: Connection) -> None:
        """Make tables with the rows of a file, which is brought to this version first."""
        source = Database(SqliteFile(path))
        try:
            source.migrate()
            make_tables(target)
            with source.read() as rows:
                _copy(rows, target)
        finally:
            source.close()


def _copy(source: Connection, target: Connection) -> None:
    """Copy the rows of all tables, and the revision, into tables as ``make_tables`` leaves them.

    What a source of an older version lacks, a table or a column, is none of that revision: a
    migration makes it.
    """
    target.execute(tables.counters.delete())
    there = set(inspect(source).get_table_names())
    for table in tables.metadata.sorted_tables:
        if table.name not in there:
            table.drop(target)
            continue
        known = {found["name"] for found in inspect(source).get_columns(table.name)}
        for column in table.c:
            if column.name not in known:
                target.execute(text(f'alter table "{table.name}" drop column "{column.name}"'))
        columns = [column for column in table.c if column.name in known]
        rows = source.execution_options(yield_per=ROWS_AT_ONCE).execute(
            table.select().with_only_columns(*columns)
        )
        for part in rows.mappings().partitions(ROWS_AT_ONCE):
            target.execute(table.insert(), [dict(row) for row in part])
    target.execute(text("delete from alembic_version"))
    revision = source.execute(text("select version_num from alembic_version")).scalar_one()
    target.execute(text("insert into alembic_version values (:it)"), {"it": revision})
