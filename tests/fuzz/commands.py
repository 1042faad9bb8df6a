"""The command line as a target: any words, on a state folder that a refused word may not change."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from loopscope import cli
from loopscope.context import EXIT_BAD_INPUT, CommandError
from tests.fuzz import seeds
from tests.fuzz.choices import Choices, edited
from tests.simulated import settled_experiment

COMMANDS = (
    "get", "describe", "events", "queue", "wait", "diff", "report", "export",
    "apply", "delete", "retry", "run", "controller", "fsck", "rebuild", "",
)  # fmt: skip
READERS = frozenset({"get", "describe", "events", "queue", "wait", "diff", "report", "export"})
WORDS = (
    "experiments", "experiment", "capture", "exp/x", "x", "exp", "steer", "/", "a/b/c", "exp/",
    "-f", "x.yaml", "loop.yaml", "missing.yaml", "bad.yaml", "folder", "-o", "json", "yaml",
    "wide", "name", "out.html", "--output=", "--selector", "a=b,c", "=", "--all", "--dry-run",
    "--root", ".", "--for", "condition=Ready", "--for=delete", "--for=condition=", "--timeout",
    "0s", "0.0h", "-1s", "9" * 400, "\u0663s", "--allow-partial", "--job-starts-per-minute", "0",
    "--resync-seconds", "nan", "inf", "--device", "cuda:99", "cuda:0", "--watch", "--verbose",
    "-n", "--namespace", "--state", "state", "no-state", "x.yaml", "--help", "-h", "--", "-",
    "---", "", " ", "\t", "\n", "\udcff", "\U0001f600", "\x1b[31m", "%s", "x" * 300, "x" * 70_000,
    "'; drop table objects; --", "*", "~nobody", "~", "null", "{}", "[", "\\", "$HOME", "\xe9",
    "e\u0301", "\u202e",
)  # fmt: skip
"""No word leads out of the folder: the commands write where they are told."""


class _Started(CommandError):
    """A controller would have been started."""


def command_target(folder: Path) -> Callable[[bytes], None]:
    """Return the target; it changes the working folder to ``folder``."""
    home = folder / "one" / "two"
    home.mkdir(parents=True)
    settled_experiment(home / "state")
    (home / "folder").mkdir()
    (home / "bad.yaml").write_bytes(b"\xff\xfe")
    (home / "loop.yaml").symlink_to(home / "loop.yaml")
    database = sqlite3.connect(home / "state" / "state.db", check_same_thread=False)

    def version() -> Any:
        return database.execute("pragma data_version").fetchone()

    def run(data: bytes) -> None:
        os.chdir(home)
        choices = Choices(data)
        command = choices.one_of(COMMANDS)
        kind = choices.one_of(sorted(seeds.SPECS))
        words = [choices.one_of(WORDS) for _ in range(choices.number(7))]
        document = edited(seeds.document(kind), choices)
        (home / "x.yaml").write_text(json.dumps(document))
        before = version()
        with _without_consequences():
            code = _exit_code([command, *words] if command else words)
        if command in READERS or code == EXIT_BAD_INPUT:
            assert version() == before, "the database changed"

    return run


def _exit_code(words: list[str]) -> int:
    """Run the command as its entry point does; whatever ends it but SystemExit is a finding."""
    argv = ["loopscope", "--state", "state", *words]
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    errors = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    redirected = contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors)
    with mock.patch.object(sys, "argv", argv), redirected[0], redirected[1]:
        try:
            cli.main()
        except SystemExit as ended:
            return int(ended.code or 0)
        finally:
            out.flush()
    return 0


@contextlib.contextmanager
def _without_consequences() -> Iterator[None]:
    """No controller starts and nothing waits: both are the business of other tests."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise _Started("a controller would start now", 1)

    with (
        mock.patch("loopscope.controller.runtime.running_controller", refuse),
        mock.patch("loopscope.commands.objects.wait.time.sleep", refuse),
    ):
        yield
