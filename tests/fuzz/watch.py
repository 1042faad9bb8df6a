"""What every input must keep to: at most 2 s, at most 500 MB, no exception but a refusal.

The 2 s are processor time, so that a busy machine is not taken for a hang; an input that waits
for something that never comes is caught by the clock, later.
"""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS_MAX = 2.0
WAIT_SECONDS_MAX = 60.0
MEMORY_BYTES_MAX = 500 * 10**6


class Hang(BaseException):
    """An input took too long. No ``Exception``: nothing in the product may swallow it."""


class Hungry(BaseException):
    """An input took too much memory."""


@dataclass
class Watch:
    """Counts inputs and remembers the worst of them."""

    inputs: int = 0
    slowest_seconds: float = 0.0
    slowest_input: bytes = b""
    memory_bytes_max: int = 0

    @contextmanager
    def input(self, data: bytes) -> Iterator[None]:
        """Watch over one input. Memory is what the process grows by, seen from outside."""
        before = resident_bytes()
        _forget_peak()
        started = time.process_time()
        signal.signal(signal.SIGPROF, _end)
        signal.signal(signal.SIGALRM, _end)
        signal.setitimer(signal.ITIMER_PROF, SECONDS_MAX)
        signal.setitimer(signal.ITIMER_REAL, WAIT_SECONDS_MAX)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._note(data, time.process_time() - started, peak_bytes() - before)

    def _note(self, data: bytes, seconds: float, memory_bytes: int) -> None:
        self.inputs += 1
        self.memory_bytes_max = max(self.memory_bytes_max, memory_bytes)
        if seconds > self.slowest_seconds:
            self.slowest_seconds, self.slowest_input = seconds, data
        if memory_bytes > MEMORY_BYTES_MAX:
            raise Hungry(f"{memory_bytes:,} bytes for an input of {len(data):,} bytes")


def limit_address_space(extra_bytes: int = 4 * MEMORY_BYTES_MAX) -> None:
    """Let a runaway input fail with MemoryError instead of taking the machine with it."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + extra_bytes, hard))


def resident_bytes() -> int:
    """Return how much memory this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """Return the most memory that this process held since the peak was last forgotten."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resident_bytes()


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not permitted here: the peak is then that of all inputs so far
        return


def _end(*_: Any) -> None:
    raise Hang(f"took more than {SECONDS_MAX} s of work, or {WAIT_SECONDS_MAX} s of waiting")
