"""What is known of the processes of a run: the fork server's journal and the failpoints' log.

A process *has begun work* when it reached a named failpoint (a transaction, an fsync, a rename, a
spawn …); a worker moreover only while a running job bears its name. Nothing else that is killed
counts: a process that is still importing has nothing to lose.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from loopscope.state import failpoints

Role = Literal["controller", "run", "worker", "command"]
SIGKILL_STATUS = -9


@dataclass
class Process:
    """One forked process."""

    pid: int
    role: Role
    asked_by: int
    forked_at: float
    failpoint: str | None
    ended_at: float | None = None
    returncode: int | None = None
    struck: bool = False
    """Whether the driver killed it."""
    reached: list[str] = field(default_factory=list)
    """The failpoints that it arrived at, in order."""

    @property
    def alive(self) -> bool:
        return self.ended_at is None

    @property
    def begun(self) -> bool:
        """Whether it did more than start: a worker that waits for a job has not."""
        return bool(self.reached)

    @property
    def killed_itself(self) -> bool:
        """Whether it died by the failpoint that it was given."""
        name = (self.failpoint or "").partition("@")[0]
        last = self.reached[-1] if self.reached else None
        return self.returncode == SIGKILL_STATUS and last == name and not self.struck


@dataclass
class Processes:
    """All processes that the fork server ever forked; ``look`` reads what is new."""

    journal: Path
    arrivals: Path
    by_pid: dict[int, Process] = field(default_factory=dict)
    """The newest process of each pid."""
    every: list[Process] = field(default_factory=list)
    _read: dict[Path, int] = field(default_factory=lambda: defaultdict(int))

    def look(self) -> None:
        """Take in what happened since the last look."""
        for line in self._new_lines(self.journal):
            self._take(json.loads(line))
        for line in self._new_lines(self.arrivals):
            pid, _, name = line.partition(" ")
            if int(pid) in self.by_pid:
                self.by_pid[int(pid)].reached.append(name)

    def alive(self, *roles: Role) -> list[Process]:
        return [p for p in self.by_pid.values() if p.alive and (not roles or p.role in roles)]

    def _take(self, event: dict[str, Any]) -> None:
        if event["event"] == "ended":
            ended = self.by_pid[event["pid"]]
            ended.ended_at, ended.returncode = event["at"], event["returncode"]
            return
        process = Process(
            event["pid"],
            role_of(event["words"]),
            event["asked_by"],
            event["at"],
            event["failpoint"],
        )
        self.by_pid[process.pid] = process
        self.every.append(process)

    def _new_lines(self, path: Path) -> Iterator[str]:
        if not path.exists():
            return
        with path.open() as stream:
            stream.seek(self._read[path])
            while (line := stream.readline()).endswith("\n"):
                self._read[path] = stream.tell()
                yield line.rstrip("\n")


def role_of(words: list[str]) -> Role:
    """Return what a command line of ours is."""
    if words[0] == "loopscope.worker":
        return "worker"
    if "controller" in words:
        return "controller"
    return "run" if "run" in words else "command"


def outlived_seconds(processes: Processes, now: float) -> dict[int, float]:
    """Return for each worker, by pid, how long it lived after its controller was gone."""
    answer = {}
    for worker in processes.every:
        parent = processes.by_pid.get(worker.asked_by)
        if worker.role == "worker" and parent is not None and parent.ended_at is not None:
            answer[worker.pid] = (worker.ended_at or now) - parent.ended_at
    return answer


def never_reached(processes: Processes) -> set[str]:
    """Return the failpoints that no process arrived at."""
    return set(failpoints.NAMES) - {name for p in processes.every for name in p.reached}
