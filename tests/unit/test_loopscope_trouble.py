"""What a user sees when the state folder, a destination or an option is no good."""

from __future__ import annotations

import sys

import pytest

from loopscope.cli import main
from loopscope.state.folder import open_state


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["loopscope", *words])
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0), "".join(capsys.readouterr())
        return 0, "".join(capsys.readouterr())

    return run


@pytest.mark.parametrize("size", [100, 5000])
def test_a_truncated_database_is_named_with_the_way_out(command, tmp_path, size):
    open_state(tmp_path / ".loopscope").database.close()
    database = tmp_path / ".loopscope" / "state.db"
    database.write_bytes(database.read_bytes()[:size])
    for leftover in tmp_path.glob(".loopscope/state.db-*"):
        leftover.unlink()
    code, output = command("get", "experiments")
    assert code != 0
    assert "DatabaseDamaged" in output
    assert "state.db" in output


def test_an_empty_database_is_not_an_empty_answer(command, tmp_path, monkeypatch):
    monkeypatch.setattr("loopscope.context.MAKING_SECONDS_MAX", 0.0)
    (tmp_path / ".loopscope").mkdir()
    (tmp_path / ".loopscope" / "state.db").touch()
    code, output = command("get", "experiments")
    assert code == 1
    assert "is empty" in output


def test_a_database_that_another_command_is_just_making_is_not_called_lost(
    command, tmp_path, monkeypatch
):
    (tmp_path / ".loopscope").mkdir()
    (tmp_path / ".loopscope" / "state.db").touch()

    def meanwhile(_: float) -> None:
        open_state(tmp_path / ".loopscope").database.close()

    monkeypatch.setattr("loopscope.context.time.sleep", meanwhile)
    assert command("get", "experiments") == (0, "No experiments found in namespace default.\n")


def test_a_lock_that_is_not_given_back_is_one_line_and_nothing_is_lost(
    command, tmp_path, monkeypatch
):
    database = open_state(tmp_path / ".loopscope").database
    monkeypatch.setattr("loopscope.state.db.dialect.sqlite.file.BUSY_TIMEOUT_SECONDS", 0.01)
    with database.write():
        assert command("get", "experiments")[0] == 0, "readers do not wait for writers"
        code, output = command("delete", "experiment", "x")
    assert code == 1
    assert output.startswith("error: DatabaseBusy: ") and output.count("\n") == 1


def test_a_file_as_state_folder_is_refused(command, tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "e.yaml").write_text("x: 1\n")
    code, output = command("--state", "notes.txt", "controller")
    assert code != 0
    assert "StateNotWritable" in output


def test_a_device_that_is_none_is_refused_before_anything_runs(command):
    code, output = command("controller", "--device", "tpu")
    assert code == 2
    assert "cpu, cuda or cuda:N" in " ".join(output.split())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "expected a number, found true"),
        ("3", "expected a number, found the text '3'; remove quotes"),
    ],
)
def test_neither_a_boolean_nor_a_quoted_text_is_a_number(value, message):
    from pydantic import ValidationError

    from loopscope.specs.rules import MappingRules

    with pytest.raises(ValidationError, match=message):
        MappingRules.model_validate({"topK": value})


FILES = [
    "rate import {}",
    "apply -f {}",
    "apply --plan {}",
    "patch experiment x --patch-file {}",
    "run x.yaml --config {}",
    "restore {}",
    "rebuild {}",
    "schema -o x.yaml/{}",
]


@pytest.mark.parametrize("words", FILES, ids=lambda words: words.rpartition(" ")[0])
def test_a_file_that_is_not_there_is_told_by_name_without_a_number(command, tmp_path, words):
    open_state(tmp_path / ".loopscope").database.close()
    (tmp_path / "x.yaml").write_text("x: 1\n")
    code, output = command(*words.format("nowhere").split())
    assert code in (1, 2) and "Errno" not in output and "Traceback" not in output
    assert any(word in output for word in ("nowhere", "x.yaml"))
