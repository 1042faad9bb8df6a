"""Admission of jobs: slots and starts per minute."""

from __future__ import annotations

WINDOW_SECONDS = 60.0


def start_allowed_at(starts: list[float], limit: int, now: float) -> float:
    """Return when the next start keeps within ``limit`` starts in any 60 seconds.

    ``starts`` are the recorded start times, oldest first. A value <= now means: now.
    """
    recent = [start for start in starts if start > now - WINDOW_SECONDS]
    if len(recent) < limit:
        return now
    return recent[len(recent) - limit] + WINDOW_SECONDS
