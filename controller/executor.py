"""Placing work: local worker processes, started when the first job needs one, kept warm."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

from state import failpoints

STOP_GRACE_SECONDS = 10.0
"""A worker whose controller is gone stops after its batch and exits within this time."""


class Executor(Protocol):
    """A way to place work. The database stays the record."""

    def free_worker(self) -> str | None:
        """Return the name of a worker without a job, starting one if a slot is empty."""

    def start(self, worker: str, job_id: int, token: int) -> None:
        """Hand a claimed job to a worker."""

    def finished(self) -> list[int]:
        """Return the ids of the jobs that workers reported as ended since the last call."""

    def is_alive(self, worker: str) -> bool:
        """Whether the named worker process exists, whoever started it."""

    def kill(self, worker: str) -> None:
        """End a worker that hangs."""

    def stop(self) -> None:
        """Let all workers stop after their batch, keeping sealed shards, and exit."""


@dataclass
class _Process:
    name: str
    process: subprocess.Popen[str]
    job_id: int | None = None


@dataclass
class LocalProcesses:
    """Worker processes on this machine, one job each."""

    state_folder: Path
    log_folder: Path
    slots: int
    device: str
    wake: Callable[[], None]
    lease_seconds: float = 30.0
    _workers: dict[str, _Process] = field(default_factory=dict)
    _ended: list[int] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def free_worker(self) -> str | None:
        """Return a warm worker without a job, or a new one if a slot is empty."""
        self._reap()
        for worker in self._workers.values():
            if worker.job_id is None:
                return worker.name
        return self._spawn() if len(self._workers) < self.slots else None

    def start(self, worker: str, job_id: int, token: int) -> None:
        """Write the job to the worker's standard input; a dead worker loses it to its lease.

        A worker that may have read half an order is ended.
        """
        found = self._workers[worker]
        found.job_id = job_id
        try:
            failpoints.reach("job-handed-over")
            assert found.process.stdin is not None  # opened as a pipe
            found.process.stdin.write(json.dumps({"job": job_id, "token": token}) + "\n")
            found.process.stdin.flush()
        except OSError:
            self.kill(worker)

    def finished(self) -> list[int]:
        """Return the jobs that ended since the last call."""
        self._reap()
        with self._lock:
            ended, self._ended = self._ended, []
        return ended

    def is_alive(self, worker: str) -> bool:
        """Whether a process with this pid and start time exists and is no zombie."""
        if worker in self._workers:
            return self._workers[worker].process.poll() is None
        return process_exists(worker)

    def kill(self, worker: str) -> None:
        """Kill a worker of ours; its lease is taken back by the caller."""
        found = self._workers.get(worker)
        failpoints.reach("worker-kill")
        if found is not None:
            found.process.kill()
            found.process.wait()

    def stop(self) -> None:
        """Close the pipes, wait for the grace period, kill what is left."""
        for worker in self._workers.values():
            with contextlib.suppress(BrokenPipeError):
                if worker.process.stdin is not None:
                    worker.process.stdin.close()
        for worker in self._workers.values():
            try:
                worker.process.wait(STOP_GRACE_SECONDS + 2)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._workers.clear()

    def _spawn(self) -> str:
        failpoints.reach("worker-spawn")
        self.log_folder.mkdir(parents=True, exist_ok=True)
        with (self.log_folder / f"worker-{len(self._workers)}.log").open("a") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "worker", "--state", str(self.state_folder)),
                    *("--device", self.device, "--lease-seconds", str(self.lease_seconds)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C reaches the controller only; it decides
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
            )
        worker = _Process(process_name(process.pid), process)
        try:
            failpoints.reach("worker-spawned")
            threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        except BaseException:  # a worker that nobody listens to would keep its slot for ever
            process.kill()
            process.wait()
            raise
        self._workers[worker.name] = worker
        return worker.name

    def _listen(self, worker: _Process) -> None:
        assert worker.process.stdout is not None  # opened as a pipe
        for line in worker.process.stdout:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                ended = int(json.loads(line)["ended"])
                with self._lock:
                    self._ended.append(ended)
                worker.job_id = None
                self.wake()
        self.wake()

    def _reap(self) -> None:
        for name in [n for n, w in self._workers.items() if w.process.poll() is not None]:
            worker = self._workers.pop(name)
            if worker.job_id is not None:
                with self._lock:
                    self._ended.append(worker.job_id)


def process_name(pid: int) -> str:
    """Return ``<pid>@<start time>``: a name that a recycled pid does not share."""
    try:
        return f"{pid}@{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return f"{pid}@gone"


def process_exists(name: str) -> bool:
    """Whether the process of this name still runs."""
    pid = int(name.split("@")[0]) if name.split("@")[0].isdigit() else -1
    if pid < 0 or not psutil.pid_exists(pid):
        return False
    try:
        zombie = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
    return not zombie and process_name(pid) == name
