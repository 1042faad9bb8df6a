"""The machine's two clocks as they stood at one moment."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class ClockReading:
    """The date, and the seconds of a clock that cannot be set and that began with ``boot``."""

    now: float
    elapsed: float
    boot: str

    @property
    def offset(self) -> float:
        """How far the date is ahead: another number after the clock was set."""
        return self.now - self.elapsed


@functools.cache
def boot_id() -> str:
    """Return the system's name for its present start; empty where it has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
