"""Time as an argument: one clock for dates, one for everything that is waited for or measured.

The difference of two dates is not a duration: the clock may be set in between.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from loopscope.state.clock_reading import ClockReading, boot_id

_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


AGAIN_SECONDS = 1.0
"""How soon ``Turns.soon`` is."""
READING_SECONDS = 0.01
"""Two clocks that are read within this time are read at once."""
READINGS_MAX = 100


class Clock(Protocol):
    """Where the controller gets the time from; tests bring their own."""

    def now(self) -> float:
        """Return Unix seconds: for what is stored and shown. This clock may be set at any time."""

    def elapsed(self) -> float:
        """Return seconds of a clock that cannot be set and that runs while the machine sleeps.

        It began with the machine; its numbers mean nothing on their own.
        """

    def worked(self) -> float:
        """Return the processor seconds of this thread: what it did, however long it was stopped."""

    def reading(self) -> ClockReading:
        """Return both clocks as they stand at one moment."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return Unix seconds."""
        return time.time()

    def elapsed(self) -> float:
        """Return the seconds since the machine was started."""
        return time.clock_gettime(_SINCE_BOOT)

    def worked(self) -> float:
        """Return the processor seconds of this thread."""
        return time.thread_time()

    def reading(self) -> ClockReading:
        """Return both clocks as they stand at one moment; a pause between two reads is retried."""
        for _ in range(READINGS_MAX):
            before, now = self.elapsed(), self.now()
            if self.elapsed() - before <= READING_SECONDS:
                break
        return ClockReading(now, before, boot_id())


@dataclass
class Turns:
    """When something that is done again and again is due.

    Its pauses begin at the end of a turn and follow from what the turn worked, not from how long
    it lasted: a process that is stopped in the middle of one owes no longer pause for that.
    """

    clock: Clock
    every_seconds: float
    share: float
    """A turn that works much comes so rarely that it takes this much of a core."""
    pause_seconds_max: float
    """But not more rarely than this."""
    next_at: float = 0.0
    _hurries: bool = False

    @property
    def due(self) -> bool:
        """Whether it is time for the next turn."""
        return self.clock.elapsed() >= self.next_at

    def soon(self) -> None:
        """Let the next turn be due in a second, also when it is the turn under way that asks."""
        self._hurries = True
        self.next_at = self.clock.elapsed() + AGAIN_SECONDS

    def owe(self, worked: float) -> None:
        """Put the next turn off for what the last one left to be worked after it."""
        latest = self.clock.elapsed() + self.pause_seconds_max
        self.next_at = max(self.next_at, min(self.next_at + worked / self.share, latest))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Take a turn; one that fails stays due."""
        began, self._hurries = self.clock.worked(), False
        yield
        if self._hurries:
            return
        pause = min((self.clock.worked() - began) / self.share, self.pause_seconds_max)
        self.next_at = self.clock.elapsed() + max(self.every_seconds, pause)
