"""The stand of a worker on a node: starts its process, hands it orders, keeps what it answers.

Runs as an actor, beside the process and not within it. So a worker is the same process whatever
places it, with the same threads and bytes; what hangs in it can be ended; and when the actor is
killed, the closed pipe of orders ends the worker (``loopscope.worker.guardian``).

A stand outlives its controller for a while, and the next controller finds it by its name. Each has
a number, higher than those before it; who comes with a lower one than a stand has heard is told so,
and changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from loopscope.controller.jobs.local_processes import ANSWER_BYTES_MAX, WORKER_COMMAND, worker_words
from loopscope.inputs.files import default_cache
from loopscope.state.child_processes import computing_environment
from loopscope.state.folder import Whereabouts, brought_here
from loopscope.state.orders import STOP_GRACE_SECONDS

ABANDONED_SECONDS = 60.0
"""A stand that no controller asked for so long lets its worker stop, and ends with it."""
LOG_BYTES_MAX = 1024 * 1024
"""What a worker says while no controller listens; older words are dropped."""
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Post:
    """All that a stand needs to start its worker, on whatever machine."""

    state: Whereabouts
    device: str = "cpu"
    memory_bytes: int = 0
    """What is reserved for its jobs."""
    lease_seconds: float = 30.0
    progress_timeout_seconds: float = 1800.0
    seconds_left: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the node's own environment leaves open."""
    command: tuple[str, ...] = ()
    """Instead of the usual worker of this installation."""


@dataclass(frozen=True)
class Standing:
    """What a stand says to a controller that takes it over; ``is_ours`` is False for an old one."""

    is_ours: bool
    job: int | None = None
    model: str | None = None
    memory_bytes: int = 0
    ended: int = 0
    """How many jobs have ended so far."""


@dataclass(frozen=True)
class Heard:
    """What a worker said since it was asked before, and whether it is gone."""

    is_ours: bool
    ended: tuple[int, ...] = ()
    log: bytes = b""
    log_end: int = 0
    has_begun: bool = False
    status: int | None = None


class Stand:
    """One worker process on this node. Methods run beside one another."""

    def __init__(self, post: Post, end: Callable[[], None] = lambda: os._exit(0)) -> None:
        self._end_actor = end
        self._epoch = 0
        self._changed = threading.Condition()
        self._heard_at = time.monotonic()
        self._job: int | None = None
        self._model: str | None = None
        self._ended: list[int] = []
        self._has_begun = False
        self._log, self._log_end = b"", 0
        self._memory_bytes = post.memory_bytes
        self._process = _started(post)
        self._readers = [
            threading.Thread(target=read, daemon=True) for read in (self._answers, self._words)
        ]
        for thread in (*self._readers, threading.Thread(target=self._watch, daemon=True)):
            thread.start()

    def take(self, epoch: int) -> Standing:
        """Belong to the controller of this number from now on, unless to a later one."""
        with self._changed:
            if not self._is_ours(epoch):
                return Standing(is_ours=False)
            return Standing(True, self._job, self._model, self._memory_bytes, len(self._ended))

    def order(self, epoch: int, job: int, line: bytes, model: str | None) -> bool:
        """Hand the worker an order; of one that is gone the job is lost to its lease."""
        with self._changed:
            if not self._is_ours(epoch):
                return False
            self._job, self._model = job, model or self._model
        try:
            assert self._process.stdin is not None  # opened as a pipe
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (OSError, ValueError):  # half an order may have been read; or closed for a stop
            self._process.kill()
        return True

    def hear(self, epoch: int, ended: int, log_from: int, seconds: float) -> Heard:
        """Return what came after ``ended`` jobs and ``log_from`` bytes, waiting for some.

        Asked again with the same numbers, it says the same again.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._is_ours(epoch):
                gone = self._gone()
                news = len(self._ended) > ended or self._log_end > log_from or gone
                left = deadline - time.monotonic()
                if news or left <= 0:
                    break
                self._changed.wait(min(left, 0.5))
            else:
                return Heard(is_ours=False)
            start = max(0, len(self._log) - (self._log_end - log_from))
            return Heard(
                True,
                tuple(self._ended[ended:]),
                self._log[start:] if self._log_end > log_from else b"",
                self._log_end,
                self._has_begun,
                self._process.returncode if gone else None,
            )

    def leave(self, epoch: int) -> bool:
        """Let the worker stop after its batch, keeping sealed shards."""
        with self._changed:
            if not self._is_ours(epoch):
                return False
        self._close()
        return True

    def kill(self, epoch: int) -> bool:
        """End the worker at once. False, and nothing is done, for a controller of before."""
        with self._changed:
            if not self._is_ours(epoch):
                return False
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        return True

    def _is_ours(self, epoch: int) -> bool:
        if epoch < self._epoch:
            return False
        self._epoch, self._heard_at = epoch, time.monotonic()
        return True

    def _gone(self) -> bool:
        """Whether the process has ended and all that it wrote was read."""
        return self._process.poll() is not None and not any(r.is_alive() for r in self._readers)

    def _close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.close()

    def _answers(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None  # opened as a pipe
        with stdout:
            for line in iter(lambda: stdout.readline(ANSWER_BYTES_MAX), b""):
                self._note(line)

    def _note(self, line: bytes) -> None:
        """Take note of an answer; anything else that a library prints is nothing to us."""
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(line)
            with self._changed:
                self._has_begun |= answer == {"began": self._job}
                if self._job is not None and answer == {"ended": self._job}:
                    self._ended.append(self._job)
                    self._job = None
                    self._changed.notify_all()

    def _words(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None  # opened as a pipe
        with stderr:
            while chunk := os.read(stderr.fileno(), CHUNK_BYTES):
                with self._changed:
                    self._log = (self._log + chunk)[-LOG_BYTES_MAX:]
                    self._log_end += len(chunk)
                    self._changed.notify_all()

    def _watch(self) -> None:
        """End a stand that no controller asks for any more, once its worker is gone."""
        while time.monotonic() < self._heard_at + ABANDONED_SECONDS:
            time.sleep(1.0)
        self._close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_GRACE_SECONDS + 2)
        self._process.kill()
        self._end_actor()


def _started(post: Post) -> subprocess.Popen[bytes]:
    state = brought_here(post.state, default_cache() / "loopscope/states")
    open_ones = {name: post.environment[name] for name in post.environment.keys() - os.environ}
    environment = computing_environment(**open_ones)
    environment.pop("OMP_NUM_THREADS", None)  # Ray sets it for what runs within an actor
    words = worker_words(
        state, post.device, post.lease_seconds, post.progress_timeout_seconds, post.seconds_left
    )
    return subprocess.Popen(
        [*(post.command or WORKER_COMMAND), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )
