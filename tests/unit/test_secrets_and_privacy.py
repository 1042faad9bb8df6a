"""Tokens stay in the environment, and a state folder is closed to other users."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest

from loopscope.cli import main
from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.hub import Hub
from loopscope.state.failures import Failure
from loopscope.state.folder import open_state
from tests.fake_hub import FakeHub

TOKEN = "hf_plantedsecret"
BREAKING = f"{TOKEN}\x01"
"""A token that no HTTP header may hold: a client's complaint about it quotes it."""


@pytest.mark.parametrize("token", [TOKEN, BREAKING, f"{TOKEN}é"])
def test_the_hub_never_answers_with_the_token(monkeypatch, tmp_path, token):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", token)
    with FakeHub() as fake:
        hub = Hub(fake.endpoint, tmp_path / "cache", timeout_seconds=5)
        with pytest.raises((InputRefused, ResolutionPending)) as refused:
            hub.commit("nobody/nothing", "main", "name")
    assert "planted" not in str(refused.value) + repr(refused.value.__cause__)


def test_what_a_download_complains_about_never_reaches_the_job(monkeypatch, tmp_path):
    from loopscope.worker.dictionaries import _downloaded
    from loopscope.worker.model_sources import local_model_folder

    def complain(*_, **__):
        raise RuntimeError(f"Illegal header value b'Bearer {TOKEN}'")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", complain)
    monkeypatch.setattr("loopscope.worker.dictionaries.hf_hub_download", complain)
    source = {"kind": "hub", "repo": "a/b", "revision": "c" * 40, "path": "x"}
    reference = {"source": source, "files": {"config.json": "0" * 64}}
    calls = (
        lambda: local_model_folder(reference, tmp_path, lambda *progress: None),
        lambda: _downloaded(source, "cfg.json"),
    )
    for call in calls:
        with pytest.raises(Failure) as failure:
            call()
        assert TOKEN not in str(failure.value)
        assert failure.value.__cause__ is None, "a traceback in the log would show it"


def modes(folder):
    return {
        path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def closed(mode):
    return mode & 0o077 == 0


def test_a_new_state_folder_is_private_whatever_the_umask(tmp_path, open_umask):
    state = open_state(tmp_path / "state")
    with state.database.write():
        found = modes(tmp_path / "state")  # the write-ahead log is there now
    assert {"state.db", "state.db-wal", "artifacts", "logs", "reports"} <= found.keys()
    assert all(closed(mode) for mode in found.values()), found


def test_a_folder_that_was_there_keeps_its_mode_but_what_is_ours_in_it_is_private(
    tmp_path, open_umask
):
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state" / "notes.txt").write_text("of the user")
    for name in ("artifacts", "logs"):
        (tmp_path / "state" / name).mkdir(mode=0o777)
    open_state(tmp_path / "state").database.close()
    found = modes(tmp_path / "state")
    assert (found["."], found["notes.txt"]) == (0o755, 0o666)
    assert all(closed(mode) for name, mode in found.items() if name not in (".", "notes.txt"))


def test_an_older_readable_database_is_closed_when_it_is_opened(tmp_path):
    open_state(tmp_path / "state").database.close()
    (tmp_path / "state" / "state.db").chmod(0o644)
    open_state(tmp_path / "state").database.close()
    assert closed(modes(tmp_path / "state")["state.db"])


def test_a_report_written_into_the_state_folder_is_behind_a_closed_door(
    tmp_path, monkeypatch, open_umask
):
    from tests.unit.reports_case import build

    build(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["loopscope", "--state", str(tmp_path / "state"), "report", "france"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert closed(modes(tmp_path / "state")["reports"])


def test_opening_a_folder_again_leaves_the_locks_of_this_process_alone(tmp_path):
    """Closing any descriptor of a file drops its locks, POSIX says: others would tidy up then."""
    look = (
        "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('pragma user_version').close()"
    )
    database = tmp_path / "state" / "state.db"
    with open_state(tmp_path / "state").database.read():
        open_state(tmp_path / "state").database.close()
        subprocess.run([sys.executable, "-c", look, str(database)], check=True)
        assert Path(f"{database}-wal").exists(), "the log of a database in use was removed"
