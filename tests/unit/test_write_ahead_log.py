"""The write-ahead log, and no other journal: what else works slower, or loses what was promised."""

import sqlite3
from contextlib import closing

import pytest

from loopscope.state.db.database import Database, open_database
from loopscope.state.db.dialect.sqlite.connections import configure
from loopscope.state.db.dialect.sqlite.file import SqliteFile
from loopscope.state.db.objects import raise_counter, resource_version
from loopscope.state.failures import TerminalFailure
from tests.simulated import new_state


@pytest.mark.parametrize("system", ["unix-none", "unix-dotfile"])
def test_a_file_system_that_offers_another_journal_is_refused(tmp_path, system):
    """Without shared memory SQLite answers ``delete`` and goes on: every reader would block."""
    path = tmp_path / "state.db"
    opened = closing(sqlite3.connect(f"file:{path}?vfs={system}", uri=True))
    with opened as connection, pytest.raises(TerminalFailure) as refused:
        configure(connection, path)
    assert refused.value.reason == "NoWriteAheadLog" and str(path) in refused.value.message


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "memory", "off"])
def test_a_database_that_came_with_another_journal_is_switched(tmp_path, mode):
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"pragma journal_mode={mode}")
        other.execute("create table t (x)")
    database = Database(SqliteFile(path))
    with database.read() as connection:
        assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"
    database.close()
    with closing(sqlite3.connect(path)) as found:
        assert found.execute("pragma journal_mode").fetchone() == ("wal",), "for good"


def test_a_new_database_has_its_log_and_every_connection_uses_it(tmp_path):
    database = open_database(SqliteFile(tmp_path / "new" / "state.db"))
    with database.write() as connection:
        raise_counter(connection, "resource_version")
    assert (tmp_path / "new" / "state.db-wal").stat().st_size > 0
    assert not (tmp_path / "new" / "state.db-journal").exists()


def test_a_long_read_keeps_no_writer_waiting_and_no_writer_a_reader(tmp_path):
    database = new_state(tmp_path / "state").database
    with database.read() as reader:
        assert resource_version(reader) == 0
        with database.write() as writer:
            raise_counter(writer, "resource_version")
            with database.read() as second:
                assert resource_version(second) == 0
        assert resource_version(reader) == 0
    with database.read() as reader:
        assert resource_version(reader) == 1


def test_asking_whether_anything_was_committed_uses_the_log_too(tmp_path):
    database = new_state(tmp_path / "state").database
    before = database.marker()
    with database.write() as connection:
        raise_counter(connection, "resource_version")
    assert database.marker() != before
    assert not (tmp_path / "state" / "state.db-journal").exists()
