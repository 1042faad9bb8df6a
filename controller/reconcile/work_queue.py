"""The queue of keys, with client-go's contract. Derived: it may vanish at any time.

One reconcile per key at a time; a key added while it is processed comes back afterwards; any
number of adds collapse to one.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from loopscope.controller.clock import Clock
from loopscope.controller.observer import Observer, Unobserved
from loopscope.specs.keys import Key

RETRY_SECONDS = 0.005
RETRY_SECONDS_MAX = 1000.0
RETRIES_PER_SECOND = 10.0
RETRIES_BURST = 100.0
"""All keys together: client-go's token bucket, so that many failing objects stay bearable."""

Priority = Literal["high", "low"]


@dataclass
class WorkQueue:
    """Keys to reconcile. High priority (edits) goes before low (start-up, resync)."""

    clock: Clock
    observer: Observer = field(default_factory=Unobserved)
    _high: dict[Key, None] = field(default_factory=dict)
    _low: dict[Key, None] = field(default_factory=dict)
    _processing: set[Key] = field(default_factory=set)
    _later: list[tuple[float, int, Key]] = field(default_factory=list)
    _due_at: dict[Key, float] = field(default_factory=dict)
    _failures: dict[Key, int] = field(default_factory=dict)
    took_low: bool = False
    """Whether the last key that was taken came from a start or a resync alone."""
    _order: itertools.count[int] = field(default_factory=itertools.count)
    _tokens: float = RETRIES_BURST
    _filled_at: float = 0.0

    def add(self, key: Key, priority: Priority = "high") -> None:
        """Ask for a reconcile. A key that is already waiting stays one, at the higher priority."""
        if key not in self._high and key not in self._low:
            self.observer.added(key, self.clock.elapsed())
        if priority == "high":
            self._low.pop(key, None)
            self._high[key] = None
        elif key not in self._high:
            self._low[key] = None

    def add_after(self, key: Key, due_at: float) -> None:
        """Ask for a reconcile at ``due_at`` (``Clock.elapsed``); the earliest of several stands."""
        if due_at < self._due_at.get(key, math.inf):
            self._due_at[key] = due_at
            heapq.heappush(self._later, (due_at, next(self._order), key))

    def add_in(self, key: Key, seconds: float) -> None:
        """Ask for a reconcile in this many seconds, but in no more than RETRY_SECONDS_MAX."""
        self.add_after(key, self.clock.elapsed() + min(max(0.0, seconds), RETRY_SECONDS_MAX))

    def add_rate_limited(self, key: Key) -> int:
        """Ask for a retry: 5 ms x 2^failures, at most 1000 s; 10 a second over all keys.

        Returns how often the key has failed since its last success.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.observer.retried(key)
        delay = min(RETRY_SECONDS * 2 ** min(failures, 30), RETRY_SECONDS_MAX)
        self.add_after(key, self.clock.elapsed() + max(delay, self._bucket_delay()))
        return failures + 1

    def _bucket_delay(self) -> float:
        now = self.clock.elapsed()
        refilled = self._tokens + (now - self._filled_at) * RETRIES_PER_SECOND
        self._filled_at = now
        self._tokens = min(RETRIES_BURST, refilled) - 1
        return max(0.0, -self._tokens / RETRIES_PER_SECOND)

    def forget(self, key: Key) -> None:
        """Reset the key's retry delay after a success."""
        self._failures.pop(key, None)

    def take(self) -> Key | None:
        """Return the next key that is due and not being processed, or None."""
        self._promote()
        key = next(self._ready(), None)
        if key is None:
            return None
        self.took_low = key not in self._high
        self._high.pop(key, None)
        self._low.pop(key, None)
        self._processing.add(key)
        self.observer.taken(key, self.clock.elapsed())
        return key

    def done(self, key: Key) -> None:
        """End the processing of a key; it comes back if it was added meanwhile."""
        self._processing.discard(key)
        self.observer.done(key, self.clock.elapsed())

    def next_due_at(self) -> float | None:
        """Return when ``take`` will next have something: now, a time, or never."""
        if next(self._ready(), None) is not None:
            return self.clock.elapsed()
        return self._later[0][0] if self._later else None

    def __len__(self) -> int:
        """Return how many keys wait now."""
        return len(self._high) + len(self._low)

    @property
    def only_low(self) -> bool:
        """Whether what waits now came from a start or a resync alone."""
        return bool(self._low) and not self._high

    def _ready(self) -> Iterator[Key]:
        waiting = itertools.chain(self._high, self._low)
        return (key for key in waiting if key not in self._processing)

    def _promote(self) -> None:
        now = self.clock.elapsed()
        while self._later and self._later[0][0] <= now:
            due_at, _, key = heapq.heappop(self._later)
            if self._due_at.get(key) == due_at:  # not overtaken by an earlier one
                del self._due_at[key]
                self.add(key)
