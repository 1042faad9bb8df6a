"""The schema, its migrations, and transactions of many processes at once."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from state import tables
from state.database import HEAD_REVISION, Database, open_database
from state.failures import TerminalFailure
from state.objects import raise_counter, resource_version
from tests.simulated import new_state

ROOT = Path(__file__).parents[2]
PROCESSES, INCREMENTS = 4, 200


@pytest.fixture
def database(tmp_path):
    return new_state(tmp_path / "state").database


def schema(path_or_engine):
    """Return every table, index and check as SQL text, without whitespace and quotes."""
    with path_or_engine.connect() as connection:
        rows = connection.execute(text("select type, name, sql from sqlite_master"))
        return {
            (type_, name): "".join(sql.split()).replace('"', "")
            for type_, name, sql in rows
            if sql and name != "alembic_version"
        }


def test_the_migrations_build_exactly_the_tables(tmp_path):
    open_database(tmp_path / "a" / "state.db").close()
    migrated = create_engine(f"sqlite:///{tmp_path}/a/state.db")
    with migrated.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == HEAD_REVISION
    declared = create_engine(f"sqlite:///{tmp_path}/declared.db")
    tables.metadata.create_all(declared)
    assert schema(migrated) == schema(declared)


def test_opening_twice_changes_nothing_and_the_folder_is_private(tmp_path):
    path = tmp_path / "state" / "state.db"
    with open_database(path).write() as connection:
        raise_counter(connection, "resource_version")
    with open_database(path).read() as connection:
        assert resource_version(connection) == 1
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_database_of_a_newer_loopscope_is_refused_and_left_alone(database):
    with database.write() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(TerminalFailure) as refused:
        open_database(database.path)
    assert refused.value.reason == "NewerDatabase" and "9999" in refused.value.message
    with database.read() as connection:
        assert connection.execute(text("select * from alembic_version")).all() == [("9999",)]


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


def test_every_commit_is_durable_and_read_while_written(database):
    with database.read() as connection:
        assert connection.execute(text("pragma journal_mode")).scalar() == "wal"
        assert connection.execute(text("pragma synchronous")).scalar() == 2  # FULL


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    path = tmp_path / "state" / "state.db"
    script = f"""
import sys
from pathlib import Path
from sqlalchemy import select, update
from state import tables
from state.database import open_database
database = open_database(Path({str(path)!r}))
counter = tables.counters
mine = counter.c.name == "resource_version"
for _ in range({INCREMENTS}):
    with database.write() as connection:
        value = connection.execute(select(counter.c.value).where(mine)).scalar_one()
        connection.execute(update(counter).where(mine).values(value=value + 1))
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    assert [(p.communicate()[1], p.returncode) for p in processes] == [("", 0)] * PROCESSES
    with Database(path).read() as connection:
        assert resource_version(connection) == PROCESSES * INCREMENTS
