"""Forked children that do one thing each, within limits, and leave an answer as JSON."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MEMORY_BYTES_MAX = 12 << 30
FILE_BYTES_MAX = 1 << 30
_POLL_SECONDS = 0.02

Ending = Literal["answered", "died", "too long"]
Work = Callable[[Path], Any]


@dataclass(frozen=True)
class Limits:
    """Processor time of a child, and for how long it may wait without using any."""

    cpu_seconds: float
    wall_seconds: float


@dataclass(frozen=True)
class Ended:
    """How a child ended: its answer if there is one, else the end of what it printed."""

    name: str
    ending: Ending
    answer: Any
    printed: str


@dataclass
class _Child:
    name: str
    folder: Path
    ends_at: float
    too_long: bool = False


@dataclass
class Children:
    """At most as many children as ``start`` was called for; each has a folder that goes with it."""

    scratch: Path
    _running: dict[int, _Child] = field(default_factory=dict)
    _started: int = 0

    def __len__(self) -> int:
        """Return how many run."""
        return len(self._running)

    def start(self, name: str, work: Work, limits: Limits) -> None:
        """Fork; the child answers with what ``work`` returns for its folder."""
        self._started += 1
        folder = self.scratch / f"{os.getpid()}-{self._started}"
        folder.mkdir(parents=True)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _be_a_child(folder, work, limits)
        self._running[pid] = _Child(name, folder, time.monotonic() + limits.wall_seconds)

    def next_ended(self) -> Ended:
        """Wait for a child to end; kill those that are over their time. Nothing of it is left."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid in self._running:
                return self._gather(pid, status)
            for late, child in self._running.items():
                if time.monotonic() > child.ends_at and not child.too_long:
                    child.too_long = True
                    os.kill(late, signal.SIGKILL)
            if pid == 0:
                time.sleep(_POLL_SECONDS)

    def _gather(self, pid: int, status: int) -> Ended:
        child = self._running.pop(pid)
        _kill_group(pid)
        over = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
        answer = child.folder / "answer.json"
        printed = (child.folder / "printed").read_text(errors="replace")[-4000:]
        try:
            if child.too_long or over:
                return Ended(child.name, "too long", None, printed)
            if not answer.exists():
                return Ended(child.name, "died", None, printed)
            return Ended(child.name, "answered", json.loads(answer.read_text()), printed)
        finally:
            shutil.rmtree(child.folder, ignore_errors=True)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it left nothing running


def _be_a_child(folder: Path, work: Work, limits: Limits) -> None:
    """Do the work and end; never return."""
    try:
        os.setsid()
        with (folder / "printed").open("w") as printed:
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
        seconds = max(1, round(limits.cpu_seconds))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ["TMPDIR"] = str(folder)
        answer = work(folder)
        unfinished = folder / "answer.part"
        unfinished.write_text(json.dumps(answer))
        unfinished.rename(folder / "answer.json")
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
