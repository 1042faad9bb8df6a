"""A schema on a PostgreSQL server as the database of a state."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import ClassVar, LiteralString, Protocol, cast

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, inspect, text

from loopscope.state.db.dialect.postgresql import leadership, listening
from loopscope.state.db.dialect.postgresql.address import Address
from loopscope.state.db.dialect.postgresql.connections import WRITE_LOCK, bare_connection, engine_of
from loopscope.state.db.dialect.postgresql.words import failure_of
from loopscope.state.failures import Failure, TerminalFailure
from loopscope.state.files import durable_replace, file_sha256

PATIENCE_SECONDS = 60.0
IDLE_WRITER_SECONDS = 8
"""A process that stops inside a write transaction loses it after this time, and others go on."""
_BEGIN_WRITE = (
    f"{WRITE_LOCK}, "
    f"set_config('idle_in_transaction_session_timeout', '{IDLE_WRITER_SECONDS}s', true)"
)
_MAY_PAUSE = text("set local idle_in_transaction_session_timeout = 0")
_WHICH = "select to_regnamespace(%s)::oid"
_THIS = "select cast(to_regnamespace('{}') as oid)"
_AS_IT_STANDS = {"no_parameters": True}
"""Several statements may go to the server at once."""


class RowFiles(Protocol):
    """How the rows of a state are written into a file, and read from one."""

    def write_file(self, source: Connection, path: Path) -> None:
        """Write all rows that a transaction sees into a new file."""
        ...

    def read_file(self, path: Path, target: Connection) -> None:
        """Make the tables in an open transaction, with the rows of a file."""
        ...


class PostgresSchema:
    """One schema. A writer waits for others, ``PATIENCE_SECONDS`` by default.

    Copies are files of ``rows``; those before a migration are made in ``folder``.
    """

    kind: ClassVar[str] = "PostgreSQL"
    begins_with_the_first_schema: ClassVar[bool] = False

    def __init__(
        self,
        address: Address,
        folder: Path,
        rows: RowFiles,
        *,
        patience_seconds: float | None = None,
    ) -> None:
        self.address = address
        self._folder = folder
        self._rows = rows
        self._patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
        self._marker: psycopg.Connection[tuple[object, ...]] | None = None
        self._schema_oid: int | None = None
        self._epoch: int | None = None
        self._own_name = secrets.token_hex(8)

    @property
    def place(self) -> str:
        """The URL, without a password."""
        return str(self.address)

    @property
    def name(self) -> str:
        """The name of the database, and of a schema that is not the usual one."""
        return f"{self.address.url.database}/{self.address.schema}"

    @cached_property
    def engine(self) -> Engine:
        """Where connections come from."""
        return engine_of(self.address, self._patience, self._own_name)

    def size_bytes(self) -> int | None:
        """Return the room of tables and indexes; None without a schema."""
        with self._bare() as connection:
            (size,) = self._one(
                connection,
                "select case when to_regnamespace(%(name)s) is null then null else coalesce(("
                "select sum(pg_total_relation_size(c.oid)) from pg_class c "
                "where c.relnamespace = to_regnamespace(%(name)s) and c.relkind = 'r' "
                "and to_regclass(%(name)s || '.alembic_version') is not null), 0) end",
                {"name": self.address.schema},
            )
        return None if size is None else int(cast("int", size))

    def check_place(self) -> None:
        """Any server is safe: its locks do not depend on a file system of ours."""

    def prepare(self) -> None:
        """Make the schema and its marker."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = sql.Identifier(self.address.schema)
        with self._bare() as connection, connection.transaction():
            # of several processes one makes it, the others wait
            connection.execute("select pg_advisory_xact_lock(hashtext('loopscope prepares'))")
            if self._one(connection, _WHICH, (self.address.schema,))[0] is not None:
                return
            connection.execute(sql.SQL("create schema {}").format(name))
            connection.execute(sql.SQL("create table {}.commit_marker (n bigint)").format(name))
            connection.execute(sql.SQL("insert into {}.commit_marker values (0)").format(name))
            connection.execute(sql.SQL(leadership.TABLE).format(name))
            connection.execute(sql.SQL(leadership.ROW).format(name))

    def begin_read(self, connection: Connection) -> None:
        """Begin a transaction that sees one moment and in which a write is an error."""
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._check(connection)

    def begin_write(self, connection: Connection) -> None:
        """Take the write lock. Raises TerminalFailure when the schema was replaced meanwhile."""
        connection.execution_options(isolation_level="READ COMMITTED", postgresql_readonly=False)
        begun = connection.exec_driver_sql(
            f"{_BEGIN_WRITE}; {self._this}", execution_options=_AS_IT_STANDS
        )
        cursor = begun.cursor
        assert cursor is not None  # statements that return rows have one
        cursor.nextset()  # read behind the lock
        row = cursor.fetchone()
        begun.close()
        self._remember(row[0] if row else None)
        if self._epoch is not None:
            epoch = connection.execute(text("select epoch from leader_lease")).scalar_one()
            if epoch != self._epoch:
                raise TerminalFailure(
                    "NoLongerLeader",
                    f"another controller leads {self.place} since this one was stopped or cut off; "
                    "nothing was written. Start it again to stand by",
                )

    def may_pause(self, connection: Connection) -> None:
        """Lift the limit on a writer that says nothing, until its transaction ends."""
        connection.execute(_MAY_PAUSE)

    @contextmanager
    def leading(self, process: str) -> Iterator[None]:
        """Hold the lease; writes of this object are fenced by its number, also afterwards."""
        self.prepare()
        try:
            with leadership.lease(self._connect, process) as epoch:
                self._epoch = epoch
                yield
        except psycopg.Error as error:
            failure = self.failure(error)
            if failure is None:
                raise
            raise failure from error

    def is_led(self) -> bool:
        """Whether a lease is good."""
        with self._bare() as connection:
            row = connection.execute(leadership.ALIVE).fetchone()
        return row is not None and row[0] is not None

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return bare_connection(self.address, self._patience)

    def marker(self) -> int:
        """Return a number that changes with each commit, of any process."""
        if self._marker is None or self._marker.closed:
            self._marker = bare_connection(self.address, self._patience)
        try:
            found = self._one(self._marker, f"{_WHICH}, (select n from commit_marker)",
                              (self.address.schema,))  # fmt: skip
        except psycopg.errors.UndefinedTable:
            raise self._replaced() from None
        except psycopg.Error:
            self._marker.close()  # the next call connects anew
            raise
        self._remember(found[0])
        return int(cast("int", found[1]))

    def waking(self, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Listen to the server's notices of commits to this schema that others made."""

        def is_of_another(notice: str) -> bool:
            schema, _, writer = notice.partition(" ")
            return schema == self.address.schema and writer != self._own_name

        return listening.listening(self._connect, is_of_another, wake)

    def failure(self, error: Exception) -> Failure | None:
        """Return what PostgreSQL's errors mean, or None when they are not about itself."""
        return failure_of(error, self.place, self._patience)

    def back_up(self, note: str) -> None:
        """Copy the last commit into the folder, whole and durable.

        The name holds the content's hash: a copy never replaces a different one.
        """
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            copy = Path(scratch) / "copy"
            self.copy_to(copy)
            name = f"state.db.{note}-{file_sha256(copy)[:12]}"
            durable_replace(copy, self._folder / name)

    def copy_to(self, path: Path) -> None:
        """Write the last commit, whole, into one file. Others may write meanwhile."""
        with self.engine.connect() as connection:
            self.begin_read(connection)
            self._rows.write_file(connection, path)
            connection.rollback()

    def restore_from(self, copy: Path) -> None:
        """Write the rows of a copy, of this or an earlier version, into a new schema."""
        self.prepare()
        with self.engine.connect() as connection:
            self.begin_write(connection)
            self.may_pause(connection)  # the file may have to be migrated first
            self._rows.read_file(copy, connection)
            _number_on(connection)
            connection.commit()
        copy.unlink()

    def complaints(self, connection: Connection) -> list[str]:
        """Read every row: the server checks each page that it reads, if its checksums are on."""
        found = []
        for name in sorted(inspect(connection).get_table_names()):
            try:
                with connection.begin_nested():
                    connection.execute(text(f'select count(t.*) from "{name}" t')).scalar_one()
            except Exception as error:
                damage = self.failure(error)
                if damage is None or damage.reason != "DatabaseDamaged":
                    raise
                found.append(f"{name}: {error}")
        return found

    def set_aside(self) -> str | None:
        """Rename the schema; return its new name, if there was one."""
        schema = self.address.schema
        with self._bare() as connection, connection.transaction():
            if self._one(connection, _WHICH, (schema,))[0] is None:
                return None
            names = (f"{schema}_set_aside_{n}" for n in range(10_000))
            free = next(name for name in names if self._one(connection, _WHICH, (name,))[0] is None)
            rename = sql.SQL("alter schema {} rename to {}")
            connection.execute(rename.format(sql.Identifier(schema), sql.Identifier(free)))
        self._schema_oid = self._epoch = None  # what is made there next has a lease of its own
        return f"schema {free} of {self.place}"

    def close(self) -> None:
        """Close all connections."""
        if self._marker is not None:
            self._marker.close()
            self._marker = None
        self.engine.dispose()
        self._schema_oid = None

    @property
    def _this(self) -> str:
        return _THIS.format(self.address.schema)  # a plain word, as addresses are read

    def _check(self, connection: Connection) -> None:
        """Look which schema this is, which also fixes the moment that a reader sees."""
        self._remember(connection.exec_driver_sql(self._this).scalar_one())

    def _remember(self, oid: object) -> None:
        if self._schema_oid is None:
            self._schema_oid = cast("int | None", oid)
        if oid is None or oid != self._schema_oid:
            raise self._replaced()

    def _replaced(self) -> TerminalFailure:
        return TerminalFailure(
            "DatabaseReplaced",
            f"{self.place} was dropped, renamed or replaced while it was in use; nothing was "
            "written to what is there now. Start again; if it is gone, `loopscope rebuild SPECS` "
            "makes it from the specs and the artifacts",
        )

    @contextmanager
    def _bare(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """Connect for one question; errors of the server come as failures."""
        try:
            with bare_connection(self.address, self._patience) as connection:
                yield connection
        except psycopg.Error as error:
            failure = self.failure(error)
            if failure is None:
                raise
            raise failure from error

    @staticmethod
    def _one(
        connection: psycopg.Connection[tuple[object, ...]],
        query: LiteralString,
        values: Sequence[object] | Mapping[str, object],
    ) -> tuple[object, ...]:
        row = connection.execute(query, values).fetchone()
        assert row is not None
        return row


def _number_on(connection: Connection) -> None:
    """Let the numbers that the server gives go on behind the rows that are there."""
    found = inspect(connection)
    for table in found.get_table_names():
        for column in found.get_columns(table):
            if column.get("autoincrement"):
                name = column["name"]
                connection.execute(
                    text(
                        f"select setval(pg_get_serial_sequence('{table}', '{name}'), "
                        f"coalesce(max({name}), 0) + 1, false) from {table}"
                    )
                )
