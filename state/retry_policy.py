"""The retry policy: when a job is tried again, and when it is given up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

JITTER = 0.1


@dataclass(frozen=True)
class RetryPolicy:
    """When a job that may succeed later is tried again."""

    attempts_max: int = 5
    losses_max: int = 10
    backoff_seconds: float = 10.0
    backoff_seconds_max: float = 600.0
    wait_seconds: float = 30.0
    """How soon a job that could not work through no fault of its own is tried again."""

    def delay_seconds(self, attempts: int, jitter: Callable[[], float] = random.random) -> float:
        """Return 10 s x 2^(attempts-1), at most 10 min, with up to 10 % jitter."""
        base = min(self.backoff_seconds * 2 ** (attempts - 1), self.backoff_seconds_max)
        return float(base * (1 + JITTER * jitter()))

    def pause_seconds_max(self, attempts: int) -> float:
        """Return the longest that a job waits that has failed so often, or gave itself back."""
        backoff = self.delay_seconds(attempts, lambda: 1.0) if attempts else 0.0
        return max(self.wait_seconds, backoff)
