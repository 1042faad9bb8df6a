"""Forked children that do one thing each, within limits, and leave an answer as JSON."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

MEMORY_BYTES_MAX = 12 << 30
FILE_BYTES_MAX = 1 << 30
ASLEEP_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.02
_LOOK_SECONDS = 1.0
AWAKE = 5.0
"""So many seconds of sleep are forgiven to a child that is seen awake."""

Ending = Literal["answered", "too long", "died", "failed"]
Work = Callable[[Path], Any]


@dataclass(frozen=True)
class Limits:
    """How much processor time a child may use, and for how long it may do hardly more than sleep.

    Time on the clock is no limit: a busy machine would decide what is killed.
    """

    cpu_seconds: float
    asleep_seconds: float = ASLEEP_SECONDS_MAX


@dataclass(frozen=True)
class Ended:
    """How a child ended: with an answer, by a limit, by a signal, or with an error of its own.

    ``printed`` is the end of what it printed.
    """

    name: str
    ending: Ending
    answer: Any
    printed: str


@dataclass
class _Child:
    name: str
    folder: Path
    limits: Limits
    looked_at: float
    slept: float = 0.0
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
        now = time.monotonic()
        self._running[pid] = _Child(name, folder, limits, looked_at=now)

    def next_ended(self) -> Ended:
        """Wait for a child to end; kill those that only sleep. Nothing of it is left."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid in self._running:
                return self._gather(pid, status)
            for running, child in self._running.items():
                _look_at(running, child)
            if pid == 0:
                time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Kill what still runs."""
        for pid in list(self._running):
            _kill_group(pid)
            self._gather(*os.waitpid(pid, 0))

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
                ending: Ending = "died" if os.WIFSIGNALED(status) else "failed"
                return Ended(child.name, ending, None, printed)
            return Ended(child.name, "answered", json.loads(answer.read_text()), printed)
        finally:
            shutil.rmtree(child.folder, ignore_errors=True)


def _look_at(pid: int, child: _Child) -> None:
    now = time.monotonic()
    if child.too_long or now < child.looked_at + _LOOK_SECONDS:
        return
    child.looked_at = now
    # In looks, not in time: a pause of the whole machine is one. Who wakes for a moment now and
    # then is seen awake now and then.
    child.slept = child.slept + _LOOK_SECONDS if _asleep(pid) else max(0.0, child.slept - AWAKE)
    if child.slept > child.limits.asleep_seconds:
        child.too_long = True
        os.kill(pid, signal.SIGKILL)


def _asleep(pid: int) -> bool:
    """Whether no thread of a process or of its descendants runs or wants to."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        states = [
            (task / "stat").read_text().rpartition(")")[2].split()[0]
            for process in family
            for task in Path(f"/proc/{process.pid}/task").iterdir()
        ]
    except (OSError, psutil.NoSuchProcess):
        return False  # something of it is just ending
    return not {"R", "D"} & set(states)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it left nothing running
        os.killpg(leader, signal.SIGKILL)


def _be_a_child(folder: Path, work: Work, limits: Limits) -> None:
    """Do the work and end; never return."""
    try:
        os.setpgrp()  # not a session: a scheduler may weigh sessions against one another
        atexit._clear()  # what the parent cleans up at its end is not the child's
        with (folder / "printed").open("w") as printed:
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
        seconds = max(1, round(limits.cpu_seconds))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None  # where the parent's temporary files lie is remembered
        answer = work(folder)
        unfinished = folder / "answer.part"
        unfinished.write_text(json.dumps(answer))
        unfinished.rename(folder / "answer.json")
        status = 0
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()  # temporary folders go
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
