"""What SQLite says about its file becomes a failure that says what to do."""

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy.exc import OperationalError

from loopscope.state.db.dialect.sqlite.words import failure_of
from loopscope.state.db.objects import raise_counter
from loopscope.state.failures import Failure, TransientFailure
from tests.fault_seams import Fault, failing
from tests.simulated import new_state


@pytest.mark.parametrize(
    ("said", "reason", "passes"),
    [
        ("database is locked", "DatabaseBusy", True),
        ("database or disk is full", "DiskFull", True),
        ("disk I/O error", "DatabaseUnreadable", True),
        ("unable to open database file", "DatabaseUnreadable", True),
        ("attempt to write a readonly database", "StateNotWritable", False),
        ("database disk image is malformed", "DatabaseDamaged", False),
    ],
)
def test_sqlites_words_become_a_failure_that_says_whether_it_may_pass(
    tmp_path, said, reason, passes
):
    database = new_state(tmp_path / "state").database
    planted = OperationalError("planted", None, sqlite3.OperationalError(said))
    with pytest.raises(Failure) as failed, database.write():
        raise planted
    assert failed.value.reason == reason
    assert isinstance(failed.value, TransientFailure) is passes
    with database.write():
        pass  # and the next one works


def test_an_io_error_on_a_disk_without_room_is_a_full_disk_and_no_damage(tmp_path, monkeypatch):
    database = new_state(tmp_path / "state").database
    monkeypatch.setattr("loopscope.state.db.dialect.sqlite.words.free_bytes", lambda path: 4096)
    planted = OperationalError("planted", None, sqlite3.OperationalError("disk I/O error"))
    with pytest.raises(TransientFailure, match="bytes are free at") as full, database.read():
        raise planted
    assert full.value.reason == "DiskFull"


def test_a_file_that_is_not_there_yet_but_could_be_may_be_opened_later(tmp_path):
    said = sqlite3.OperationalError("unable to open database file")
    found = failure_of(said, tmp_path / "state.db", 1.0)
    assert isinstance(found, TransientFailure) and found.reason == "DatabaseUnreadable"
    assert failure_of(said, tmp_path / "gone" / "state.db", 1.0).reason == "StateNotWritable"


def test_a_commit_that_fails_gives_the_write_lock_back(tmp_path):
    state = new_state(tmp_path / "state")
    fault = Fault(1, "database is locked")
    with (
        failing("commit", fault, state.path),
        pytest.raises(TransientFailure),
        state.database.write() as connection,
    ):
        raise_counter(connection, "fencing_token")
    with closing(sqlite3.connect(state.path / "state.db", timeout=0)) as somebody_else:
        somebody_else.execute("BEGIN IMMEDIATE")
        (tokens,) = somebody_else.execute(
            "SELECT value FROM counters WHERE name = 'fencing_token'"
        ).fetchone()
        somebody_else.execute("ROLLBACK")
    assert tokens == 0
    with state.database.read(), state.database.write():
        pass
