"""Looking needs no write: every command that reads works on a state folder one may not change."""

import ctypes
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from loopscope.specs.keys import Key
from loopscope.state.db import applied, objects
from loopscope.state.db.database import Database
from loopscope.state.db.dialect.sqlite.reading import SqliteAsItLies, SqliteCopy
from loopscope.state.failures import TerminalFailure
from loopscope.state.read_only import open_to_read
from tests.simulated import capture_spec, new_state

ROOT = Path(__file__).parents[2]
OLDER = ROOT / "tests" / "data" / "schemas" / "0003.sql"
PROGRAM = """
import contextlib, io, json, sys
from loopscope import cli
answers = []
for words in json.load(sys.stdin):
    sys.argv = ["loopscope", *words]
    said, wrong, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
    answers.append([code, said.getvalue(), wrong.getvalue()])
json.dump(answers, sys.stdout)
"""


def give_up_the_right_to_write_anywhere():
    """Of root's rights, the one that passes over permissions (CAP_DAC_OVERRIDE)."""
    if os.geteuid() == 0 and sys.platform == "linux":
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP


def run(program, text, folder):
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=text,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LOOPSCOPE_CACHE": str(folder / "cache")},
        preexec_fn=give_up_the_right_to_write_anywhere,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def locked(tmp_path):
    """Take the right to write in the state folder away; return how to run commands on it."""

    def lock(*commands):
        state = tmp_path / "state"
        modes = {path: path.stat().st_mode for path in (state, *state.rglob("*"))}
        for path, mode in modes.items():
            path.chmod(mode & 0o555)
        try:
            probe = "import os; print(os.access('state', os.W_OK))"
            if run(probe, "", tmp_path).strip() == "True":
                pytest.skip("this system lets us write anyway")
            before = contents(state)
            words = json.dumps([["--state", "state", *map(str, one)] for one in commands])
            answers = json.loads(run(PROGRAM, words, tmp_path))
            assert contents(state) == before
        finally:
            for path, mode in modes.items():
                path.chmod(mode)
        return answers

    return lock


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


READING = [
    ["get", "experiments"],
    ["get", "mapping", "france", "-o", "yaml"],
    ["describe", "experiment", "france"],
    ["why", "experiment", "france"],
    ["events"],
    ["queue", "--all"],
    ["logs", "experiment", "france"],
    ["wait", "experiment", "france", "--for=condition=Ready", "--timeout=0"],
    ["explain", "experiment.spec.mapping"],
    ["gc"],
]


def all_succeed(answers):
    return [(words, answer) for words, answer in zip(READING, answers, strict=True) if answer[0]]


def test_every_reading_command_works_on_an_archived_folder(settled, locked, tmp_path):
    settled.state.database.close()
    assert not (tmp_path / "state" / "state.db-wal").exists()
    answers = locked(*READING)
    assert all_succeed(answers) == []
    assert "france" in answers[0][1]


def test_reports_and_bundles_of_an_archived_folder_are_written_elsewhere(
    loopscope, experiment, locked, tmp_path
):
    loopscope("apply", "-f", experiment())
    answers = locked(
        ["report", "x", "-o", "report.html"], ["export", "x", "bundle", "--allow-partial"]
    )
    assert [code for code, _, _ in answers] == [0, 0]
    assert (tmp_path / "report.html").exists() and (tmp_path / "bundle").is_dir()


def test_specs_are_compared_with_an_archived_folder(loopscope, experiment, locked):
    path = experiment()
    loopscope("apply", "-f", path)
    path.write_text(path.read_text().replace("hook:", "maxTokens: 64\n  hook:"))
    differs, plans, checks, applies = locked(
        ["diff", "-f", path], ["plan", "-f", path], ["apply", "-f", path, "--dry-run"],
        ["apply", "-f", path],
    )  # fmt: skip
    assert differs[:2] == [1, "experiment/x\n  spec.maxTokens: 128 -> 64\n"]
    assert plans[0] == 0 and "experiment/x configured" in plans[1]
    assert checks[:2] == [0, "experiment/x configured (dry run)\n"]
    assert applies[0] == 1 and "StateNotWritable" in applies[2]


def test_what_a_crash_left_in_the_log_is_read_without_writing(settled, locked, tmp_path):
    settled.apply(name="paris")
    with settled.state.database.read():  # somebody is connected, so the log is not yet put back
        shutil.copytree(tmp_path / "state", tmp_path / "copy", dirs_exist_ok=True)
    settled.state.database.close()
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "copy").rename(tmp_path / "state")
    (tmp_path / "state" / "state.db-shm").unlink()
    assert (tmp_path / "state" / "state.db-wal").stat().st_size > 0
    answers = locked(*READING[:6])
    assert [code for code, _, _ in answers] == [0] * 6
    assert "paris" in answers[0][1]


def test_a_folder_in_use_is_read_as_it_is_now(settled, locked, tmp_path):
    settled.apply(name="paris")
    with settled.state.database.read():
        assert (tmp_path / "state" / "state.db-wal").stat().st_size > 0
        (code, out, err), *_ = locked(["get", "experiments", "-o", "name"])
    assert (code, out, err) == (0, "experiment/france\nexperiment/paris\n", "")


def test_an_archive_of_an_older_version_is_read_and_stays_as_it_is(locked, tmp_path):
    (tmp_path / "state").mkdir()
    with closing(sqlite3.connect(tmp_path / "state" / "state.db")) as database:
        database.executescript(OLDER.read_text("utf-8"))
        database.execute("PRAGMA journal_mode=WAL")
    (code, out, err), *_ = locked(["get", "experiments"])
    assert (code, err) == (0, "") and out


def test_a_report_that_cannot_go_into_the_folder_says_where_else_it_may_go(settled, locked):
    settled.state.database.close()
    shutil.rmtree(settled.state.path / "reports", ignore_errors=True)
    (code, _, err), *_ = locked(["report", "france"])
    assert code == 1 and "name another place" in err


def test_an_archive_on_a_network_file_system_is_read_unless_somebody_writes_there(
    settled, tmp_path, monkeypatch
):
    path = tmp_path / "state"
    settled.state.database.close()

    def refuse(_path):
        raise TerminalFailure("NetworkFileSystem", "it is on nfs")

    for module in ("file", "reading"):
        place = f"loopscope.state.db.dialect.sqlite.{module}.refuse_network_file_system"
        monkeypatch.setattr(place, refuse)
    with pytest.raises(TerminalFailure, match="nfs"):
        open_to_read(path)
    monkeypatch.setattr(os, "access", lambda _path, mode: mode == os.R_OK)
    with open_to_read(path).database.read():
        pass
    (path / "state.db-wal").touch()
    with pytest.raises(TerminalFailure, match="nfs"):
        open_to_read(path)


def test_a_copy_of_a_database_holds_what_the_file_and_its_log_hold(tmp_path):
    state = new_state(tmp_path / "state")
    with state.database.write() as connection:
        applied.set_mark(connection, "seen", "yes")
    before = sorted(path.name for path in state.path.iterdir())
    copy = Database(SqliteCopy(state.path / "state.db"))
    with copy.read() as connection:
        assert applied.mark(connection, "seen") == "yes"
    copy.close()
    assert sorted(path.name for path in state.path.iterdir()) == before


def test_a_database_that_is_read_as_it_lies_shows_one_moment(tmp_path):
    state = new_state(tmp_path / "state")
    as_it_lies = Database(SqliteAsItLies(state.path / "state.db"))
    key = Key("Capture", "default", "c")
    with as_it_lies.read() as connection:
        assert objects.listed(connection) == []
        with state.database.write() as other:
            objects.apply(other, key, capture_spec(), now=0.0)
        assert objects.listed(connection) == [], "the moment at which it was opened"
    with as_it_lies.read() as connection:
        assert [record.key for record in objects.listed(connection)] == [key]
