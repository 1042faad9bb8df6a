"""The database: transactions in plain words, and forward migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from loopscope.state import failpoints
from loopscope.state.db import tables
from loopscope.state.db.dialect.contract import Dialect
from loopscope.state.failures import TerminalFailure

HEAD_REVISION = "0009"
MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """One database. ``read`` sees a consistent snapshot; ``write`` holds the write lock.

    Errors about the database itself are raised as failures whose message gives the remedy.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read transaction; a write in it is an error."""
        with self._in_plain_words(), self.dialect.engine.connect() as connection:
            self.dialect.begin_read(connection)
            yield connection
            connection.rollback()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a write transaction; commits at the end, rolls back on any exception.

        Raises TransientFailure when others hold the lock for too long.
        """
        with self._in_plain_words(), self.dialect.engine.connect() as connection:
            failpoints.reach("transaction-begin")
            try:
                self.dialect.begin_write(connection)
                yield connection
                failpoints.reach("transaction-commit")
                connection.commit()
            except BaseException:
                # also after a commit that failed: closing alone would put the connection back
                # into the pool with its transaction open, and the write lock held for ever
                connection.rollback()
                raise
        failpoints.reach("transaction-committed")

    def marker(self) -> int:
        """Return a number that changes with each commit, of any process."""
        with self._in_plain_words():
            return self.dialect.marker()

    def migrate(self) -> None:
        """Bring the schema to this version. Refuses a database of a newer Loopscope.

        All or nothing, and once: of several processes the first migrates under the write lock,
        the others wait for it and find nothing to do.
        """
        with self._in_plain_words(), self.dialect.engine.connect() as connection:
            if schema_revision(connection) == HEAD_REVISION:
                return
        with self.write() as connection:
            current = schema_revision(connection)
            if current == HEAD_REVISION:
                return
            if current is not None and current > HEAD_REVISION:
                raise TerminalFailure(
                    "NewerDatabase",
                    f"{self.dialect.place} has schema {current}, this Loopscope knows "
                    f"{HEAD_REVISION}; upgrade",
                )
            if current is not None:
                self.dialect.may_pause(connection)  # a large one is copied for minutes
                self.dialect.back_up(f"before-{HEAD_REVISION}-from-{current}")
            if current is None and not self.dialect.begins_with_the_first_schema:
                make_tables(connection)
            else:
                _upgrade(connection)

    def close(self) -> None:
        """Close all connections."""
        self.dialect.close()

    @contextmanager
    def _in_plain_words(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            failure = self.dialect.failure(error)
            if failure is None:
                raise
            raise failure from error


def open_database(dialect: Dialect) -> Database:
    """Open (creating it, private to the user) and migrate the database."""
    dialect.prepare()
    database = Database(dialect)
    try:
        database.migrate()
    except BaseException:
        database.close()
        raise
    return database


def schema_revision(connection: Connection) -> str | None:
    """Return the version of the schema; None if the database has no tables of Loopscope."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text("select version_num from alembic_version")).first()
    return str(row[0]) if row else None


def make_tables(connection: Connection) -> None:
    """Make the tables of this version where there are none, and note the version."""
    tables.metadata.create_all(connection)
    connection.execute(tables.counters.insert(), [{"name": n, "value": 0} for n in tables.COUNTED])
    version = "create table alembic_version (version_num varchar(32) not null primary key)"
    connection.execute(text(version))
    connection.execute(text("insert into alembic_version values (:it)"), {"it": HEAD_REVISION})


def _upgrade(connection: Connection) -> None:
    from alembic import command  # imported late: a second of start-up that most commands save
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD_REVISION)
