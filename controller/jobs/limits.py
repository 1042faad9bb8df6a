"""Admission of jobs: starts per minute and free space."""

from __future__ import annotations

WINDOW_SECONDS = 60.0


def start_allowed_at(
    starts: list[float], limit: int, now: float, burst: int | None = None
) -> float:
    """Return when the next start keeps within ``limit`` starts in any 60 seconds.

    With a ``burst``, there are also at most ``burst + x * limit / 60`` starts in any x seconds up
    to 60: ``burst`` at once, then evenly. ``starts`` are the recorded start times, oldest first. A
    value <= now means: now.
    """
    recent = [start for start in starts if start > now - WINDOW_SECONDS]
    times = [now]
    if len(recent) >= limit:
        times.append(recent[len(recent) - limit] + WINDOW_SECONDS)
    if burst is not None:
        pause = WINDOW_SECONDS / limit
        newest_first = enumerate(reversed(recent), start=1)
        times += [at + (n - burst + 1) * pause for n, at in newest_first if n >= burst]
    return max(times)


def below_floor(free_bytes: int, floor_bytes: int) -> str | None:
    """Return why no job may start with so little free space, or None when there is enough."""
    if free_bytes >= floor_bytes:
        return None
    return (
        f"{free_bytes:,} bytes are free where the state folder lies, and below {floor_bytes:,} "
        "(--free-space-floor) no job starts; free some, and it goes on by itself"
    )
