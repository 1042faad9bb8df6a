"""Old databases come forward whole, or stay what they were."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from loopscope.state import failpoints
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import database, events, inputs, jobs, objects, tables
from loopscope.state.db.database import HEAD_REVISION, MIGRATIONS, open_database
from loopscope.state.db.dialect.sqlite.file import SqliteFile
from loopscope.state.failures import TerminalFailure
from loopscope.state.job_facts import facts_of
from tests.schema_dump import SCHEMAS, restore

ROOT = Path(__file__).parents[2]
REVISIONS = sorted(file.name[:4] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))
NEXT = f"{int(HEAD_REVISION) + 1:04}"

MIGRATION = f'''
"""Planted by a test."""
import os, signal, time
from pathlib import Path
from alembic import op
from sqlalchemy import Column, Integer

revision = "{NEXT}"
down_revision = "{HEAD_REVISION}"
branch_labels = depends_on = None

def upgrade():
    op.create_table("planted", Column("id", Integer, primary_key=True))
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(Column("planted", Integer))
    op.execute("update counters set value = value + 1000")
    {{then}}
'''


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "state.db"


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Return a function that makes this Loopscope one schema newer; ``then`` ends the migration."""
    folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations")

    def planted(then="pass"):
        file = folder / "versions" / f"{NEXT}_planted.py"
        file.write_text(MIGRATION.replace("{then}", then))
        monkeypatch.setattr(database, "MIGRATIONS", folder)
        monkeypatch.setattr(database, "HEAD_REVISION", NEXT)
        return file

    return planted


def as_process(tmp_path, path, **environment):
    """Start a process of the newer Loopscope that opens the database."""
    script = f"""
from pathlib import Path
from loopscope.state.db import database
from loopscope.state.db.dialect.sqlite.file import SqliteFile
database.MIGRATIONS, database.HEAD_REVISION = Path({str(tmp_path / "migrations")!r}), {NEXT!r}
database.open_database(SqliteFile(Path({str(path)!r})))
"""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def content(path):
    """Return every row of every table of a database file; tables by name, columns by name."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        tables_ = connection.execute(
            "select name from sqlite_master where type = 'table'"
        ).fetchall()
        return {
            name: [dict(row) for row in connection.execute(f'select * from "{name}" order by 1')]
            for (name,) in tables_
        }


def schema(path):
    """Return every table, index and check as SQL text, without whitespace and quotes."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("select type, name, sql from sqlite_master").fetchall()
    return {
        (type_, name): "".join(sql.split()).replace('"', "")
        for type_, name, sql in rows
        if sql and name != "alembic_version"
    }


def backups(path):
    return sorted(path.parent.glob("state.db.before-*"))


# -- the schema -------------------------------------------------------------------------


def test_the_migrations_build_exactly_the_tables(path, tmp_path):
    open_database(SqliteFile(path)).close()
    with create_engine(f"sqlite:///{path}").connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == HEAD_REVISION == REVISIONS[-1]
    tables.metadata.create_all(create_engine(f"sqlite:///{tmp_path}/declared.db"))
    assert schema(path) == schema(tmp_path / "declared.db")


def test_every_released_schema_has_a_dump():
    assert {f"{revision}.sql" for revision in REVISIONS} == {f.name for f in SCHEMAS.iterdir()}, (
        "python -m tests.schema_dump writes the dump of the newest schema"
    )


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_released_migration_is_never_edited(path, tmp_path, monkeypatch, revision):
    monkeypatch.setattr(database, "HEAD_REVISION", revision)
    open_database(SqliteFile(path)).close()
    restore(revision, tmp_path / "released" / "state.db")
    assert schema(path) == schema(tmp_path / "released" / "state.db")


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_released_schema_comes_forward_with_all_its_rows(path, revision):
    restore(revision, path)
    before = content(path)
    assert all(before.values()), "the dump has rows in every table"
    opened = open_database(SqliteFile(path))
    after = content(path)
    assert after["alembic_version"] == [{"version_num": HEAD_REVISION}]
    for table, rows in before.items():
        if table == "alembic_version":
            continue
        kept = [{column: row[column] for column in rows[0]} for row in after[table]]
        assert kept == rows, table
    with opened.read() as connection:
        records = objects.listed(connection)
        assert {"france", "runs", "retries"} <= {record.key.name for record in records}
        assert sum(record.ready for record in records) == 6
        shares = ["pending"] if revision >= "0009" else []
        assert [job.state for job in jobs.listed(connection)] == ["pending", "running", *shares]
        assert len(jobs.progress_of(connection)) == 1
        geometries = 1 if revision >= "0007" else 0  # an artifact of their own since then
        assert len(artifact_index.listed(connection)) == 5 + geometries
        assert all(inputs.get(connection, r["reference_digest"]) for r in before["inputs"])
        assert len(events.listed(connection)) == len(before["events"])
        assert objects.changes_since(connection, objects.resource_version(connection)) == []


@pytest.mark.parametrize("revision", [r for r in REVISIONS if r < "0006"])
def test_the_jobs_of_a_schema_without_facts_get_those_of_their_payloads(path, revision):
    restore(revision, path)
    open_database(SqliteFile(path)).close()
    found = content(path)["jobs"]
    assert found != []
    for row in found:
        facts = facts_of(row["stage"], json.loads(row["payload"]))
        assert {name: row[name] for name in facts} == {
            **facts, "inputs": json.dumps(facts["inputs"]),
        }  # fmt: skip


# -- forward only -----------------------------------------------------------------------


def test_a_database_of_a_newer_loopscope_is_refused_and_left_alone(path):
    restore("0001", path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update alembic_version set version_num = '9999'")
    before = content(path)
    with pytest.raises(TerminalFailure) as refused:
        open_database(SqliteFile(path))
    assert refused.value.reason == "NewerDatabase" and "9999" in refused.value.message
    assert content(path) == before and backups(path) == []


# -- all or nothing ---------------------------------------------------------------------


def test_a_migration_changes_schema_revision_and_rows_together(path, plant):
    open_database(SqliteFile(path)).close()
    plant()
    with open_database(SqliteFile(path)).read() as connection:
        assert objects.resource_version(connection) == 1000
    assert content(path)["alembic_version"] == [{"version_num": NEXT}]
    assert "planted" in content(path)


def test_a_migration_that_fails_in_the_middle_leaves_the_old_database(path, plant):
    restore(HEAD_REVISION, path)
    before, old_schema = content(path), schema(path)
    plant("op.execute('insert into nowhere values (1)')")
    for _ in range(3):
        with pytest.raises(sqlalchemy.exc.OperationalError, match="nowhere"):
            open_database(SqliteFile(path))
        assert (content(path), schema(path)) == (before, old_schema)
    assert len(backups(path)) == 1, "one copy is enough of what did not change"
    plant()
    open_database(SqliteFile(path))
    assert content(path)["jobs"] == [{**row, "planted": None} for row in before["jobs"]]


def test_a_process_killed_in_the_middle_of_a_migration_leaves_the_old_database(
    path, plant, tmp_path
):
    restore(HEAD_REVISION, path)
    before, old_schema = content(path), schema(path)
    plant("os.kill(os.getpid(), signal.SIGKILL)")
    killed = as_process(tmp_path, path)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert (content(path), schema(path)) == (before, old_schema)
    plant()
    open_database(SqliteFile(path))
    assert content(path)["alembic_version"] == [{"version_num": NEXT}]


def test_of_two_processes_one_migrates_and_the_other_waits(path, plant, tmp_path):
    restore(HEAD_REVISION, path)
    before = content(path)
    arrivals, migrated = tmp_path / "arrivals", tmp_path / "migrated"
    plant(f"""
    with Path({str(migrated)!r}).open("a") as file:
        file.write("once\\n")
    for _ in range(6000):  # until the other one wants the lock, too: a minute at most
        if Path({str(arrivals)!r}).read_text().count("transaction-begin") == 2:
            break
        time.sleep(0.01)
    """)
    pair = [as_process(tmp_path, path, **{failpoints.LOG_VARIABLE: str(arrivals)}) for _ in "ab"]
    assert [(p.communicate()[1], p.returncode) for p in pair] == [("", 0)] * 2
    assert migrated.read_text() == "once\n"
    assert content(path)["alembic_version"] == [{"version_num": NEXT}]
    (backup,) = backups(path)
    assert content(backup) == before


# -- backups ----------------------------------------------------------------------------


def test_the_backup_is_whole_even_if_the_last_commits_lie_in_the_log(path, plant):
    restore(HEAD_REVISION, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("PRAGMA wal_autocheckpoint=0")
        other.execute("update counters set value = 77")
        before = content(path)
        bare = shutil.copy(path, path.with_name("bare.db"))
        assert content(bare) != before, "the file alone lacks the last commit"
        plant()
        open_database(SqliteFile(path))
    (backup,) = backups(path)
    assert content(backup) == before
    assert before["counters"][0]["value"] == 77
    names = {file.name for file in path.parent.iterdir()}
    assert not any(name.startswith((backup.name + "-", "state.db.copying")) for name in names)


def test_the_backup_is_on_the_disk_before_anything_is_changed(path, plant):
    restore(HEAD_REVISION, path)
    before = content(path)
    plant()
    order = []

    def note(name):
        order.append(name)
        if name == "transaction-commit":
            assert content(backups(path)[0]) == content(path) == before

    with failpoints.handled_by(note):
        open_database(SqliteFile(path))
    written = ["transaction-begin", "fsync", "replace", "fsync", "transaction-commit"]
    assert order == [*written, "transaction-committed"]


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_without_a_backup_there_is_no_migration(path, plant, place):
    restore(HEAD_REVISION, path)
    before = content(path)
    plant()

    def disk_full(name):
        if name == place:
            raise OSError(28, "No space left on device")

    with failpoints.handled_by(disk_full), pytest.raises(OSError, match="No space"):
        open_database(SqliteFile(path))
    assert content(path) == before
    assert [file.name for file in path.parent.glob("state.db.*")] == [], "no half copies"
    open_database(SqliteFile(path))
    assert content(path)["alembic_version"] == [{"version_num": NEXT}]


def test_a_backup_never_replaces_an_earlier_one(path, plant):
    restore(HEAD_REVISION, path)
    plant()
    open_database(SqliteFile(path)).close()
    (first,) = backups(path)
    kept = content(first)
    for leftover in path.parent.glob("state.db*"):
        if leftover != first:
            leftover.unlink()
    shutil.copy(first, path)  # somebody goes back, works on, and comes forward again
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update counters set value = value + 1")
    again = content(path)
    open_database(SqliteFile(path))
    assert content(first) == kept
    assert [content(b) for b in backups(path) if b != first] == [again]


def test_a_damaged_database_is_not_migrated(path, plant):
    restore(HEAD_REVISION, path)
    data = bytearray(path.read_bytes())
    data[8192:12288] = b"\x99" * 4096  # some table's or index's first page
    path.write_bytes(data)
    plant()
    with pytest.raises(TerminalFailure) as refused:
        open_database(SqliteFile(path))
    assert refused.value.reason == "DatabaseDamaged"
    assert backups(path) == []
