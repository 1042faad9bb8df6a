"""The URL of a state on a server: what is no such URL is refused in one line, and kept nowhere."""

import os
import subprocess
import sys

import pytest

from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import SERVER, database_of, keep_database_at

pytest.importorskip("psycopg")

from loopscope.state.db.dialect.postgresql.address import address_of

NOWHERE = "postgresql+psycopg://app:s3cret@127.0.0.1:1/db"
"""Nothing listens on port 1."""


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("postgresql+psycopg://app:s3cret@127.0.0.1:port/db", "is no URL"),
        ("postgresql+psycopg://app:s3cret@127.0.0.1:99999/db", "has the port 99999"),
        ("postgresql+psycopg://app:s3cret@127.0.0.1/db?foo=bar", "that libpq does not know"),
        ("postgresql+psycopg://app:s3cret@h/db?options=-cx", "options, which Loopscope sets"),
        ("postgresql+psycopg://h/db?schema=a-b&password=s3cret", "has a schema that is not"),
        ("mysql://app:s3cret/with@both@h/x", "names mysql"),
        ("s3cret" * 100_000, "is no URL"),
    ],
)
def test_a_wrong_url_is_refused_in_a_short_line_without_its_password(url, complaint):
    with pytest.raises(TerminalFailure, match=complaint) as refused:
        address_of(url)
    assert len(str(refused.value)) < 1000
    assert "s3cret" not in str(refused.value) or "@" not in url


@pytest.mark.parametrize(
    "url", [NOWHERE, "postgresql+psycopg://h/db?password=s3cret&sslmode=prefer"]
)
def test_no_message_shows_a_password_wherever_it_stands(url):
    address = address_of(url)
    assert "s3cret" not in str(address) and "s3cret" in address.conninfo


def test_a_url_that_leads_nowhere_is_not_kept_so_the_right_one_is_taken_next(
    tmp_path, monkeypatch, loopscope
):
    monkeypatch.setenv("LOOPSCOPE_STATE", NOWHERE)
    monkeypatch.setattr("sys.argv", ["loopscope", "get", "experiments"])
    from loopscope import cli

    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1 and not (tmp_path / ".loopscope").exists()


@pytest.mark.parametrize(
    "words",
    [
        *(["version"], ["--version"], ["--help"], ["get", "--help"], ["completion", "bash"]),
        *(["explain", "experiment.spec.hook"], ["api-resources"], ["schema", "experiment"]),
    ],
)
def test_what_needs_no_state_is_there_although_its_url_leads_nowhere(tmp_path, words):
    done = subprocess.run(
        [sys.executable, "-m", "loopscope", *words], cwd=tmp_path, check=False,
        env={**os.environ, "LOOPSCOPE_STATE": NOWHERE}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "") and done.stdout
    assert list(tmp_path.iterdir()) == []


def test_words_are_completed_although_the_url_leads_nowhere(tmp_path):
    offered = {
        **os.environ, "LOOPSCOPE_STATE": NOWHERE, "_LOOPSCOPE_COMPLETE": "complete_bash",
    }  # fmt: skip
    for line, found in (("loopscope\ndesc", "describe\n"), ("loopscope\nget\nexp\n", "\n")):
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(line.count("\n"))}
        done = subprocess.run(
            [sys.executable, "-m", "loopscope"], cwd=tmp_path, check=False,
            env={**offered, **asked}, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.stdout, done.stderr) == (found, "")


def test_a_url_may_stand_after_the_command(tmp_path, monkeypatch, loopscope, capsys):
    monkeypatch.setattr("sys.argv", ["loopscope", "get", "experiments", "--state", NOWHERE])
    from loopscope import cli

    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err
    assert "127.0.0.1:1" in said and "s3cret" not in said


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_a_file_that_names_no_server_is_named_and_never_taken_for_no_database(tmp_path, content):
    if content is None:
        (tmp_path / SERVER).mkdir()
    else:
        (tmp_path / SERVER).write_bytes(content)
    for look in (lambda: database_of(tmp_path), lambda: keep_database_at(tmp_path, NOWHERE)):
        with pytest.raises(TerminalFailure, match="database cannot be read"):
            look()
