"""PostgreSQL passes the suite of databases, on a server of its own."""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text

from loopscope.controller.runtime import running_controller
from loopscope.controller.settings import Settings
from loopscope.state.db import database
from loopscope.state.db.database import (
    HEAD_REVISION,
    Database,
    open_database,
    schema_revision,
)
from loopscope.state.db.dialect.postgresql import server
from loopscope.state.db.dialect.postgresql.address import Address, address_of
from loopscope.state.db.dialect.postgresql.server import PostgresSchema
from loopscope.state.db.dialect.sqlite.reading import SqliteAsItLies
from loopscope.state.db.objects import raise_counter
from loopscope.state.db.rows import RowsInSqlite
from loopscope.state.failures import TransientFailure
from loopscope.state.folder import keep_database_at, open_state
from tests.conformance.database import DatabaseConformance
from tests.postgres_server import PostgresServer

PATIENCE_SECONDS = 60.0
IDLE_LIMIT = text("show idle_in_transaction_session_timeout")


class RowsThatNoteTheLimit(RowsInSqlite):
    """Notes how long the last writer may say nothing, while a file is written or read."""

    writer: Connection | None = None

    def __init__(self) -> None:
        self.limits: list[str] = []

    def write_file(self, source: Connection, path: Path) -> None:
        assert self.writer is not None
        self.limits.append(self.writer.execute(IDLE_LIMIT).scalar_one())
        super().write_file(source, path)

    def read_file(self, path: Path, target: Connection) -> None:
        self.limits.append(target.execute(IDLE_LIMIT).scalar_one())
        super().read_file(path, target)


class SchemaWithAKnownWriter(PostgresSchema):
    def __init__(self, address: Address, folder: Path, rows: RowsThatNoteTheLimit) -> None:
        super().__init__(address, folder, rows)
        self.known_rows = rows

    def begin_write(self, connection: Connection) -> None:
        super().begin_write(connection)
        self.known_rows.writer = connection


class TestPostgres(DatabaseConformance):
    @pytest.fixture(autouse=True)
    def _open(self, tmp_path: Path, postgres: PostgresServer) -> None:
        self.server = postgres
        self.place = tmp_path
        self.database = open_database(self.dialect(tmp_path))

    def dialect(self, place: Path, patience_seconds: float | None = None) -> PostgresSchema:
        schema = f"s{hashlib.sha256(str(place).encode()).hexdigest()[:12]}"
        address = address_of(f"{self.server.url('postgres')}&schema={schema}")
        return PostgresSchema(address, place, RowsInSqlite(), patience_seconds=patience_seconds)

    def fill_up(self, connection: Connection) -> None:
        connection.execute(
            text(
                "create function full_disk() returns trigger language plpgsql as "
                "$$ begin raise exception 'no space left' using errcode = '53100'; end $$"
            )
        )
        connection.execute(
            text(
                "create trigger full_disk before insert on marks "
                "for each row execute function full_disk()"
            )
        )

    def backups(self, place: Path) -> list[Database]:
        return [Database(SqliteAsItLies(copy)) for copy in sorted(place.glob("state.db.before-*"))]

    def known(self) -> SchemaWithAKnownWriter:
        return SchemaWithAKnownWriter(
            self.dialect(self.place).address, self.place, RowsThatNoteTheLimit()
        )

    def test_a_writer_loses_its_turn_only_where_nothing_else_is_waited_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with self.database.write() as connection:
            assert connection.execute(IDLE_LIMIT).scalar_one() == f"{server.IDLE_WRITER_SECONDS}s"
        dialect = self.known()
        monkeypatch.setattr(database, "HEAD_REVISION", "9998")
        with pytest.raises(Exception, match="9998"):  # no migration leads there
            open_database(dialect)
        assert dialect.known_rows.limits == ["0"], "a copy before a migration takes its time"

    def test_a_restored_file_may_be_migrated_for_as_long_as_that_takes(self) -> None:
        copy = self.place / "copy"
        self.database.dialect.copy_to(copy)
        self.database.close()
        dialect = self.known()
        dialect.set_aside()
        dialect.restore_from(copy)
        assert dialect.known_rows.limits == ["0"]
        self.database = open_database(dialect)

    def test_a_state_of_before_comes_forward_and_its_copy_can_be_restored(self) -> None:
        self.raise_version(self.database)
        with self.database.write() as connection:
            connection.execute(text("drop table shares"))
            connection.execute(text("alter table workers drop column maker"))
            connection.execute(text("update alembic_version set version_num = '0008'"))
        self.database.close()
        forward = open_database(self.dialect(self.place))
        with forward.read() as connection:
            assert schema_revision(connection) == HEAD_REVISION
            assert connection.execute(text("select * from shares")).all() == []
        forward.close()
        (copy,) = self.place.glob("state.db.before-*")
        dialect = self.dialect(self.place)
        dialect.set_aside()
        dialect.restore_from(copy)
        self.database = open_database(dialect)
        assert self.version() == 1

    def test_a_writer_that_stood_still_is_not_told_of_another(self) -> None:
        lost = psycopg.errors.IdleInTransactionSessionTimeout("terminating connection")
        failure = self.database.dialect.failure(lost)
        assert isinstance(failure, TransientFailure) and failure.reason == "DatabaseBusy"
        assert "stood still" in failure.message and "another process" not in failure.message

    # -- notices of commits --------------------------------------------------------------------

    @contextmanager
    def heard_by(self, opened: Database) -> Iterator[queue.Queue[int]]:
        """Yield the version at each call, after that for what was there before."""
        calls: queue.Queue[int] = queue.Queue()
        with opened.dialect.waking(lambda: calls.put(self.version())):
            assert calls.get(timeout=PATIENCE_SECONDS) == self.version()
            yield calls

    def test_a_commit_of_another_process_wakes_and_none_of_its_own(self) -> None:
        other = self.another()
        with self.heard_by(self.database) as here, self.heard_by(other) as there:
            own = self.raise_version(self.database)
            assert there.get(timeout=PATIENCE_SECONDS) == own, "which is another's there"
            foreign = self.raise_version(other)
            assert here.get(timeout=PATIENCE_SECONDS) == foreign
            assert here.empty()

    def test_a_commit_to_another_schema_of_the_database_wakes_nobody(self) -> None:
        elsewhere = open_database(self.dialect(self.place / "elsewhere"))
        with self.heard_by(self.another()) as calls, self.heard_by(self.another_there()) as there:
            self.raise_version(elsewhere)
            there.get(timeout=PATIENCE_SECONDS)
            here = self.raise_version(self.database)
            assert calls.get(timeout=PATIENCE_SECONDS) == here
            assert calls.empty()

    def another_there(self) -> Database:
        return Database(self.dialect(self.place / "elsewhere"))

    def test_a_listener_whose_connection_is_cut_connects_anew(self) -> None:
        with self.heard_by(self.another()) as calls:
            with psycopg.connect(self.server.conninfo("postgres"), autocommit=True) as hand:
                cut = hand.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where query = 'listen loopscope_changed'"
                ).fetchall()
            assert (True,) in cut
            calls.get(timeout=PATIENCE_SECONDS)  # of what it may have missed meanwhile
            written = self.raise_version(self.database)
            assert calls.get(timeout=PATIENCE_SECONDS) == written


def test_a_controller_is_woken_by_what_another_process_writes(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    keep_database_at(tmp_path, postgres.new_database())
    state, command = open_state(tmp_path), open_state(tmp_path)
    with running_controller(state, Settings()) as runtime:
        assert runtime.wake.wait(PATIENCE_SECONDS), "it listens"
        runtime.wake.clear()
        with command.database.write() as connection:
            raise_counter(connection, "resource_version")
        assert runtime.wake.wait(PATIENCE_SECONDS)
