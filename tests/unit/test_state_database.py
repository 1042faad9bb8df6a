"""Transactions, and what SQLite was told about durability."""

import sqlite3
import threading
from contextlib import closing

import pytest
import sqlalchemy
from sqlalchemy import text

from loopscope.state.db import tables
from loopscope.state.db.database import Database, open_database
from loopscope.state.db.dialect.sqlite.connections import (
    CHECKPOINT_PAGES,
    WAL_BYTES_KEPT,
    configure,
)
from loopscope.state.db.dialect.sqlite.file import BUSY_TIMEOUT_SECONDS, SqliteFile
from loopscope.state.db.objects import raise_counter, resource_version
from loopscope.state.failures import TerminalFailure, TransientFailure
from tests.simulated import new_state


@pytest.fixture
def database(tmp_path):
    return new_state(tmp_path / "state").database


def test_opening_twice_changes_nothing_and_the_folder_is_private(tmp_path):
    path = tmp_path / "state" / "state.db"
    with open_database(SqliteFile(path)).write() as connection:
        raise_counter(connection, "resource_version")
    with open_database(SqliteFile(path)).read() as connection:
        assert resource_version(connection) == 1
    assert path.parent.stat().st_mode & 0o077 == 0


def test_an_error_rolls_back_everything_that_its_transaction_wrote(database):
    with pytest.raises(KeyboardInterrupt), database.write() as connection:
        raise_counter(connection, "resource_version")
        connection.execute(tables.job_starts.insert().values(token=1, job_id=1, started_at=0.0))
        raise KeyboardInterrupt
    with database.write() as connection:
        assert resource_version(connection) == 0
        assert connection.execute(tables.job_starts.select()).all() == []


def test_a_reader_sees_one_moment_however_long_it_looks(database):
    with database.read() as reader:
        assert resource_version(reader) == 0
        with database.write() as writer:
            raise_counter(writer, "resource_version")
        assert resource_version(reader) == 0
    with database.read() as reader:
        assert resource_version(reader) == 1


def test_a_failed_read_leaves_the_connection_usable(database):
    with pytest.raises(sqlalchemy.exc.OperationalError), database.read() as connection:
        connection.execute(text("select * from nowhere"))
    with database.write() as connection:
        assert raise_counter(connection, "resource_version") == 1


def test_a_job_cannot_be_in_a_state_that_does_not_exist(database):
    job = {"stage": "capture", "digest": "d", "kind": "Capture", "namespace": "n", "name": "n",
           "generation": 1, "payload": {}, "not_before": 0.0, "created_at": 0.0}  # fmt: skip
    with pytest.raises(sqlalchemy.exc.IntegrityError), database.write() as connection:
        connection.execute(tables.jobs.insert().values(state="paused", **job))


def test_every_connection_is_durable_patient_and_bounded(database):
    pragmas = {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL: a commit is on the disk when it returns
        "busy_timeout": BUSY_TIMEOUT_SECONDS * 1000,
        "wal_autocheckpoint": CHECKPOINT_PAGES,
        "journal_size_limit": WAL_BYTES_KEPT,
    }
    for opened in (database.read, database.write):
        with opened() as connection:
            found = {p: connection.execute(text(f"pragma {p}")).scalar() for p in pragmas}
        assert found == pragmas


def other_connection(database):
    """Return a connection as another process would have it, without any patience."""
    return closing(sqlite3.connect(database.dialect.path, timeout=0, isolation_level=None))


def test_a_write_holds_the_lock_before_its_first_statement(database):
    with other_connection(database) as other:
        with database.write():
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            assert other.execute("select count(*) from objects").fetchone() == (0,)
        other.execute("BEGIN IMMEDIATE")


def test_a_read_holds_no_lock_and_cannot_become_a_write(database):
    with database.read() as reader:
        resource_version(reader)
        with other_connection(database) as other:
            other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlalchemy.exc.OperationalError, match="readonly"):
            raise_counter(reader, "resource_version")
    with database.write() as connection:
        assert raise_counter(connection, "resource_version") == 1


def test_a_lock_that_is_never_given_back_is_named_in_plain_words(database):
    impatient = Database(SqliteFile(database.dialect.path, patience_seconds=0.01))
    with database.write(), pytest.raises(TransientFailure) as busy, impatient.write():
        pass
    assert busy.value.reason == "DatabaseBusy" and str(database.dialect.path) in busy.value.message
    with impatient.write() as connection:
        assert raise_counter(connection, "resource_version") == 1


def test_a_full_disk_is_named_and_rolls_back(database):
    with pytest.raises(TransientFailure) as full, database.write() as connection:
        connection.execute(text("pragma max_page_count=1"))
        store_message(connection, MEBIBYTE)
    assert full.value.reason == "DiskFull"
    with database.read() as connection:
        assert connection.execute(tables.events.select()).all() == []


def test_a_new_file_that_somebody_else_is_just_writing_is_waited_for(tmp_path):
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("create table t (x)")
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.1, lambda: other.execute("COMMIT")).start()
        with Database(SqliteFile(path)).read() as connection:
            assert connection.execute(text("pragma journal_mode")).scalar() == "wal"


def test_a_file_system_without_shared_memory_is_refused(tmp_path):
    in_memory = closing(sqlite3.connect(":memory:"))
    with in_memory as connection, pytest.raises(TerminalFailure) as refused:
        configure(connection, tmp_path)
    assert refused.value.reason == "NoWriteAheadLog"


@pytest.mark.parametrize("name", ["why?", "50%", "#1", "two words", "été"])
def test_the_folder_may_have_any_name(tmp_path, name):
    path = tmp_path / name / "state.db"
    with open_database(SqliteFile(path)).write() as connection:
        raise_counter(connection, "resource_version")
    assert path.is_file() and [p.name for p in tmp_path.iterdir()] == [name]


# -- the write-ahead log ----------------------------------------------------------------

MEBIBYTE = 1024 * 1024


def store_message(connection, size):
    connection.execute(tables.events.delete())
    connection.execute(
        tables.events.insert().values(
            kind="k", namespace="n", name="n", type="Normal", reason="r", message="x" * size,
            count=1, first_seen_at=0.0, last_seen_at=0.0,
        )
    )  # fmt: skip


def churn(database, mebibytes):
    for _ in range(mebibytes):
        with database.write() as connection:
            store_message(connection, MEBIBYTE)


def log_size(database):
    return database.dialect.path.with_name("state.db-wal").stat().st_size


def test_the_log_stays_small_under_churn(database):
    churn(database, 20)
    assert log_size(database) <= CHECKPOINT_PAGES * 4096 + 2 * MEBIBYTE


def test_the_log_that_a_long_read_made_grow_is_cut_afterwards(database):
    churn(database, 1)
    with database.read() as reader:
        resource_version(reader)
        churn(database, 20)
        assert log_size(database) > WAL_BYTES_KEPT, "a reader needs what was there before"
    churn(database, 6)
    assert log_size(database) <= WAL_BYTES_KEPT
