"""Jobs in words and numbers: how far, how fast, how long still, what they wait for."""

from __future__ import annotations

from loopscope.state.records import (
    CODE_CHANGED,
    UNPLACEABLE,
    WAITS_FOR_SPACE,
    JobHead,
    Progress,
)
from loopscope.views.numbers import age


def job_detail(
    job: JobHead,
    progress: Progress | None,
    *,
    now: float,
    waits_for: str | None = None,
    makes_room_for: str | None = None,
) -> str:
    """Return in words what a job does or waits for, in the scheduler's words if they are known.

    ``makes_room_for``: for whom it gives its slot back after the shard under way.
    """
    if makes_room_for is not None and job.state == "running":
        doing = job_detail(job, progress, now=now)
        return f"{doing}; makes room after this shard for {makes_room_for}"
    match job.state:
        case "running" if progress is not None:
            left = remaining_seconds(progress)
            eta = f", {age(left)} left" if left is not None and left >= 1 else ""
            done = f"{progress.done}/{progress.total} {progress.unit}"
            return f"{progress.phase} {done}{_speed_words(progress)}{eta}"
        case "running":
            return "a worker starts"
        case "pending" if job.reason in (CODE_CHANGED, UNPLACEABLE):
            return f"{job.reason}: {job.message}"
        case "pending" if job.not_before > now:
            return f"retry in {age(job.not_before - now)} after {job.reason}: {job.message}"
        case "pending" if job.reason in WAITS_FOR_SPACE:
            return f"no free space: {job.reason}: {job.message}"
        case "pending":
            return waits_for or "waits for a worker slot"
        case _:
            return ": ".join(word for word in (job.reason, job.message) if word)


def remaining_seconds(progress: Progress) -> float | None:
    """Return the time left in the phase at its mean speed so far; None before the first unit."""
    if progress.done <= 0 or progress.total <= 0:
        return None
    spent = max(0.0, progress.updated_at - progress.phase_started_at)
    return spent * max(0, progress.total - progress.done) / progress.done


def token_speed(progress: Progress) -> float | None:
    """Return the tokens done per second in the phase so far; None where they are not counted."""
    spent = progress.updated_at - progress.phase_started_at
    return progress.tokens / spent if progress.tokens and spent > 0 else None


def _speed(progress: Progress) -> float | None:
    """Return the units done per second in the phase so far; None before the first."""
    spent = progress.updated_at - progress.phase_started_at
    return progress.done / spent if progress.done > 0 and spent > 0 else None


def _speed_words(progress: Progress) -> str:
    """Return the speed in words, where there is more than one thing to do."""
    tokens = token_speed(progress)
    if tokens is not None:
        return f", {tokens:,.0f} tokens/s"
    rate = _speed(progress)
    return f", {rate:.1f} {progress.unit}/s" if rate is not None and progress.total > 1 else ""
