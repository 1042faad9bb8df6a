"""The executor of this machine: worker processes, started on demand and kept warm."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from loopscope.controller.jobs.executor import Executor
from loopscope.controller.jobs.scheduling import Place
from loopscope.controller.jobs.worker_log import WorkerLog, obituary
from loopscope.state import failpoints
from loopscope.state.child_processes import computing_environment
from loopscope.state.orders import EXIT_OUT_OF_TIME, STOP_GRACE_SECONDS, Order
from loopscope.state.processes import process_exists, process_name
from loopscope.state.workers import log_path

WORKER_COMMAND = (sys.executable, "-P", "-m", "loopscope.worker")
"""``-P``: nothing in the folder that the user works in is ever taken for a module."""
WORKER_LIBRARIES = (
    *("gguf", "jaxtyping", "sae_lens", "safetensors", "torch"),
    *("transformer_lens", "transformers"),
)
"""What the extra ``worker`` of the package installs, by import name."""
ANSWER_BYTES_MAX = 1024
"""A longer line on a worker's standard output is none of its answers."""
SPAWN_PAUSE_SECONDS_MAX = 30.0
"""Workers that crash before they begin a job are started 1, 2, 4 … s apart, at most this."""
OBITUARIES_MAX = 64


def missing_worker_libraries() -> tuple[str, ...]:
    """Return which libraries a worker on this machine would lack; none is imported for it."""
    return tuple(name for name in WORKER_LIBRARIES if importlib.util.find_spec(name) is None)


def worker_words(
    state: Path,
    device: str,
    lease_seconds: float,
    progress_timeout_seconds: float,
    seconds_left: float | None,
) -> list[str]:
    """Return what a worker is told when it starts, behind its command."""
    left = [] if seconds_left is None else ["--seconds-left", str(seconds_left)]
    return [
        *("--state", str(state), "--device", device),
        *("--lease-seconds", str(lease_seconds)),
        *("--progress-timeout-seconds", str(progress_timeout_seconds)),
        *left,
    ]


@dataclass
class _Process:
    name: str
    slot: int
    process: subprocess.Popen[bytes]
    log: WorkerLog
    device: str
    job_id: int | None = None
    has_begun: bool = False
    model: str | None = None
    """The identity of the model that its last job needed."""


@dataclass
class LocalProcesses(Executor):
    """Worker processes on this machine, one job each."""

    state_folder: Path
    log_folder: Path
    slot_devices: tuple[str, ...]
    """Where the worker of each slot computes."""
    wake: Callable[[], None]
    lease_seconds: float = 30.0
    progress_timeout_seconds: float = 1800.0
    seconds_left: Callable[[], float] | None = None
    """For how long workers may work from now on; None: without a limit."""
    _time_is_up: bool = False
    _workers: dict[str, _Process] = field(default_factory=dict)
    _obituaries: dict[str, str] = field(default_factory=dict)
    _crashes_at_start: int = 0
    _spawn_not_before: float = 0.0
    _ended: list[int] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def places(self) -> tuple[Place, ...]:
        """Return warm workers without a job, then a place for each empty slot."""
        self._reap()
        if self._time_is_up:
            return ()
        idle = [
            Place(worker.device, worker.name, worker.model)
            for worker in self._workers.values()
            if worker.job_id is None
        ]
        if time.monotonic() < self._spawn_not_before:
            return tuple(idle)
        return (*idle, *(Place(self.slot_devices[slot]) for slot in self._empty_slots()))

    def free_worker(self, place: Place | None = None, memory_bytes: int = 0) -> str | None:
        """Return the warm worker of a place (default: the first), or a new one in a slot."""
        places = self.places()
        place = place or next(iter(places), None)
        if place is None or place not in places:
            return None
        return place.worker or self._spawn(place.device)

    def _empty_slots(self) -> list[int]:
        taken = {worker.slot for worker in self._workers.values()}
        return [slot for slot in range(len(self.slot_devices)) if slot not in taken]

    def start(self, worker: str, order: Order, model: str | None = None) -> None:
        """Write the job to the worker's standard input; a dead worker loses it to its lease.

        A worker that may have read half an order is ended.
        """
        found = self._workers[worker]
        found.job_id = order.job
        found.model = model or found.model
        try:
            failpoints.reach("job-handed-over")
            assert found.process.stdin is not None  # opened as a pipe
            found.process.stdin.write(order.to_line())
            found.process.stdin.flush()
        except OSError:
            self.kill(worker)

    def finished(self) -> list[int]:
        """Return the jobs that ended since the last call."""
        self._reap()
        with self._lock:
            ended, self._ended = self._ended, []
        return ended

    def time_is_up(self) -> bool:
        """Whether a worker found that its next shard would end after its time."""
        self._reap()
        return self._time_is_up

    def is_alive(self, worker: str) -> bool:
        """Whether a process with this pid and start time exists and is not a zombie."""
        if worker in self._workers:
            return self._workers[worker].process.poll() is None
        return process_exists(worker)

    def how_it_ended(self, worker: str) -> str:
        """Return in words how a worker ended; one that still runs gives no sign of life."""
        self._reap()
        if worker in self._workers:
            return "gave no sign of life and is ended"
        return self._obituaries.get(worker, "")

    def kill(self, worker: str) -> None:
        """Kill a worker, also one that an earlier controller left; the caller takes its lease."""
        found = self._workers.get(worker)
        failpoints.reach("worker-kill")
        if found is not None:
            _end(found.process)
        elif process_exists(worker):
            with contextlib.suppress(psutil.Error):
                psutil.Process(int(worker.split("@")[0])).kill()

    def stop(self) -> list[str]:
        """Close the pipes, wait for the grace period, kill what is left; return all names."""
        for worker in self._workers.values():
            with contextlib.suppress(BrokenPipeError):
                if worker.process.stdin is not None:
                    worker.process.stdin.close()
        deadline = time.monotonic() + STOP_GRACE_SECONDS + 2
        for worker in self._workers.values():
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _end(worker.process)
        stopped = list(self._workers)
        self._workers.clear()
        return stopped

    def _spawn(self, device: str) -> str:
        failpoints.reach("worker-spawn")
        self.log_folder.mkdir(parents=True, exist_ok=True)
        slot = next(n for n in self._empty_slots() if self.slot_devices[n] == device)
        words = worker_words(
            self.state_folder,
            device,
            self.lease_seconds,
            self.progress_timeout_seconds,
            None if self.seconds_left is None else self.seconds_left(),
        )
        process = subprocess.Popen(
            [*WORKER_COMMAND, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the controller only; it decides
            env=computing_environment(),
        )
        try:
            failpoints.reach("worker-spawned")
            assert process.stderr is not None  # opened as a pipe
            log = WorkerLog(log_path(self.log_folder, slot), process.stderr)
            worker = _Process(process_name(process.pid), slot, process, log, device)
            threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        except BaseException:  # a worker without a listener would keep its slot for ever
            process.kill()
            process.wait()
            raise
        self._workers[worker.name] = worker
        return worker.name

    def _listen(self, worker: _Process) -> None:
        stdout = worker.process.stdout
        assert stdout is not None  # opened as a pipe
        with stdout:
            for line in iter(lambda: stdout.readline(ANSWER_BYTES_MAX), b""):
                self._hear(worker, line)
        self.wake()

    def _hear(self, worker: _Process, line: bytes) -> None:
        """Take note of an answer; anything else that a library prints is nothing to us."""
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            return
        if worker.job_id is None:
            return
        if answer == {"began": worker.job_id}:
            worker.has_begun = True
        elif answer == {"ended": worker.job_id}:
            with self._lock:
                self._ended.append(worker.job_id)
            worker.job_id = None
            self.wake()

    def _reap(self) -> None:
        for name in [n for n, w in self._workers.items() if w.process.poll() is not None]:
            worker = self._workers.pop(name)
            self._note_crash(worker)
            self._time_is_up |= worker.process.returncode == EXIT_OUT_OF_TIME
            if worker.job_id is not None:
                self._obituaries[name] = obituary(worker.process.returncode, worker.log)
                if len(self._obituaries) > OBITUARIES_MAX:
                    self._obituaries.pop(next(iter(self._obituaries)))
                with self._lock:
                    self._ended.append(worker.job_id)

    def _note_crash(self, worker: _Process) -> None:
        """Keep a worker that cannot even start from being started at full speed."""
        if worker.has_begun:
            self._crashes_at_start = 0
        elif worker.process.returncode != -signal.SIGKILL:  # another process killed it
            pause = min(2.0**self._crashes_at_start, SPAWN_PAUSE_SECONDS_MAX)
            self._crashes_at_start += 1
            self._spawn_not_before = time.monotonic() + pause


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):  # deep in a system call; it cannot publish
        process.wait(1.0)
