"""Stop requests: what is under way may be finished, within a grace period."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable

from loopscope.state.orders import STOP_GRACE_SECONDS

LAST_RESORT_SECONDS = STOP_GRACE_SECONDS - 1.0
"""When a thread ends a process whose main thread is deep in a computation."""
GUARDIAN_SECONDS = STOP_GRACE_SECONDS - 0.5
"""When the guardian process ends one in which not even a thread can run."""
FINISH_SECONDS = STOP_GRACE_SECONDS - 3.0
"""For how long a shard may still be finished; the rest is for giving the job back."""
EXIT_UNFINISHED = 75


class StopRequest:
    """Set once, by SIGTERM or by the end of the orders. Starts the grace period."""

    def __init__(self, last_resort: Callable[[], None] = lambda: os._exit(EXIT_UNFINISHED)) -> None:
        self._last_resort = last_resort
        self._lock = threading.Lock()
        self._began_at: float | None = None
        self.ends_at = math.inf
        """When a stop is going to be asked for (``time.monotonic``), if that is known before."""
        self.out_of_time = False
        """Whether the process stops because what would come next ends after ``ends_at``."""
        self._asked = threading.Event()

    def begin(self) -> None:
        """Ask for a stop; a second time changes nothing."""
        with self._lock:
            if self._began_at is not None:
                return
            self._began_at = time.monotonic()
        self._asked.set()
        timer = threading.Timer(LAST_RESORT_SECONDS, self._last_resort)
        timer.daemon = True
        timer.start()

    @property
    def asked(self) -> bool:
        """Whether a stop was asked for."""
        return self._asked.is_set()

    def begin_for_lack_of_time(self) -> None:
        """Stop before ``ends_at``: what would come next cannot end before it."""
        self.out_of_time = True
        self.begin()

    @property
    def seconds_left(self) -> float:
        """For how long work may go on; infinite if no end is known."""
        return self.ends_at - time.monotonic()

    def wait(self, seconds: float) -> None:
        """Pause, but not beyond the moment when a stop is asked for."""
        self._asked.wait(seconds)

    @property
    def seconds_to_finish(self) -> float:
        """How long work that is under way may still take; at least 0."""
        if self._began_at is None:
            return FINISH_SECONDS
        return max(0.0, self._began_at + FINISH_SECONDS - time.monotonic())


def on_terminate(act: Callable[[], None]) -> None:
    """Call ``act`` in a thread when SIGTERM comes; call this before any other thread starts.

    A signal handler would wait for the main thread to come back from its computation.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        act()

    threading.Thread(target=wait, daemon=True).start()
