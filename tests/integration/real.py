"""Drives real loopscope processes on a tiny experiment and looks at what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.tiny_experiment import make_experiment

REPOSITORY = Path(__file__).parents[2]
PATIENCE_SECONDS = 900
"""A guard against hanging: beside load 15 an experiment of seconds took more than three minutes."""
PRESENCE_AND_SHORTCUTS = {"controllers", "workers", "sources"}


def _heed_interrupts() -> None:
    """A test run in the background ignores SIGINT, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Place:
    """A folder with a tiny experiment, its own state folder and its own cache."""

    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def specs(self) -> Path:
        return self.folder / "specs"

    def write(self, name: str = "tiny", **changes: Any) -> Path:
        return make_experiment(self.folder, name, **changes)

    def environment(self, failpoint: str | None = None) -> dict[str, str]:
        own = {"LOOPSCOPE_CACHE": str(self.folder / "cache"), "LOOPSCOPE_TORCH_THREADS": "1"}
        if failpoint:
            own["LOOPSCOPE_FAILPOINT"] = failpoint
        return {**os.environ, **own}

    def start(self, *words: str, failpoint: str | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "loopscope", "--state", str(self.state), *words]
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            preexec_fn=_heed_interrupts,  # noqa: PLW1509 - one thread at this point
            env=self.environment(failpoint),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *words: str, failpoint: str | None = None) -> tuple[int, str]:
        process = self.start(*words, failpoint=failpoint)
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, output

    def run(self, failpoint: str | None = None) -> tuple[int, str]:
        arguments = ("run", str(self.specs), "--root", str(self.folder))
        return self.call(*arguments, failpoint=failpoint)

    def settle(self) -> None:
        code, output = self.run()
        assert code == 0, output + self.worker_log()

    def worker_log(self) -> str:
        return "".join(path.read_text() for path in (self.state / "logs").glob("*.log"))

    def jobs(self) -> list[dict[str, Any]]:
        """Return the jobs in the order in which they were queued, without starting a process."""
        with _reading(self.state) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("select * from jobs order by id")]

    def stages_since(self, count: int) -> list[str]:
        return sorted(job["stage"] for job in self.jobs()[count:])

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row of the database."""
        return all_rows(self.state)

    def settled_rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row but those that say who is there and which files need no reading."""
        return settled_rows(self.state)

    def payloads(self) -> dict[str, str]:
        """Return the content digest of every published artifact."""
        manifests = (self.state / "artifacts").glob("[a-z]*/*/manifest.json")
        return {p.parent.name: json.loads(p.read_text())["contentDigest"] for p in manifests}

    def artifact(self, stage: str, name: str) -> Path:
        code, output = self.call("get", stage, name, "-o", "json")
        assert code == 0, output
        reference = json.loads(output)["status"]["artifact"]
        return self.state / "artifacts" / reference["stage"] / reference["digest"]


def workers_of(place: Place) -> list[psutil.Process]:
    """Return the worker processes of a state folder that are alive."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE
        and "loopscope.worker" in (process.info["cmdline"] or [])
        and str(place.state) in (process.info["cmdline"] or [])
    ]


def eventually(what: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Return the first true answer; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if answer := what():
                return answer
        except (sqlite3.OperationalError, OSError, KeyError):
            pass
        time.sleep(0.05)
    raise AssertionError("it never became true")


def _reading(state: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{state}/state.db?mode=ro", uri=True)


def all_rows(state: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of a state folder's database, sorted; nothing where there is none."""
    if not (state / "state.db").exists():
        return {}
    with _reading(state) as connection:
        query = "select name from sqlite_master where type = 'table'"
        names = [name for (name,) in connection.execute(query)]
        return {n: sorted(connection.execute(f"select * from {n}"), key=repr) for n in names}


def settled_rows(state: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row but those that say who is there and which files need no reading."""
    return {n: rows for n, rows in all_rows(state).items() if n not in PRESENCE_AND_SHORTCUTS}
