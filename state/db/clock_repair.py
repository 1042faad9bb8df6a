"""The dates in the database that are compared with the clock, moved when the clock was set.

With each start of a job the controller notes how far the date was ahead of a clock that cannot be
set. When that has changed, the clock was set by the difference, and the starts move along: in any
60 seconds that really pass there are no more of them than the limit, and none lies in the future,
where it would hold back others. The pauses of waiting jobs are only cut to their longest length.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, bindparam, func, select, update

from loopscope.state.clock_reading import ClockReading
from loopscope.state.db import applied, tables
from loopscope.state.retry_policy import RetryPolicy

SET_SECONDS = 0.1
"""Less than this is a clock that is slowly put right, not one that was set."""
_MARK = "clock"
_s = tables.job_starts.c
_j = tables.jobs.c
_NEWEST = select(func.max(_s.started_at))
_IN_THE_FUTURE = select(_j.id, _j.attempts, _j.created_at, _j.not_before).where(
    _j.state == "pending",
    (_j.created_at > bindparam("now")) | (_j.not_before > bindparam("latest")),
)
"""Built once: each start of a job asks."""


def note(connection: Connection, clock: ClockReading) -> None:
    """Note how the clock stands, in the transaction that records a start by it."""
    applied.set_mark(connection, _MARK, f"{clock.boot} {clock.offset!r}")


def is_due(connection: Connection, clock: ClockReading, policy: RetryPolicy) -> bool:
    """Whether ``put_right`` would change anything."""
    return bool(_starts_are_off_by(connection, clock)) or any(_due(connection, clock, policy))


def put_right(connection: Connection, clock: ClockReading, policy: RetryPolicy) -> None:
    """Move the starts by as much as the clock was set, and cut what waits for too long."""
    off = _starts_are_off_by(connection, clock)
    if off:
        connection.execute(update(tables.job_starts).values(started_at=_s.started_at + off))
        note(connection, clock)
    for job_id, values in list(_due(connection, clock, policy)):
        connection.execute(update(tables.jobs).where(_j.id == job_id).values(**values))


def _starts_are_off_by(connection: Connection, clock: ClockReading) -> float:
    """Return by how much the clock was set since the last start, as far as that is known.

    After a restart of the machine only this: no start lies in the future.
    """
    newest = connection.execute(_NEWEST).scalar()
    if newest is None:
        return 0.0
    boot, _, offset = (applied.mark(connection, _MARK) or "").rpartition(" ")
    moved = clock.offset - float(offset) if offset and boot == clock.boot else 0.0
    moved = moved if abs(moved) > SET_SECONDS else 0.0
    return moved + min(0.0, clock.now - (float(newest) + moved))


def _due(
    connection: Connection, clock: ClockReading, policy: RetryPolicy
) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the waiting jobs that came, or go on, in a future too far, with their right dates."""
    latest = clock.now + policy.wait_seconds
    for row in connection.execute(_IN_THE_FUTURE, {"now": clock.now, "latest": latest}):
        has_failed = row.not_before > row.created_at
        longest = policy.pause_seconds_max(row.attempts) if has_failed else 0.0
        right = {
            "created_at": min(row.created_at, clock.now),
            "not_before": min(row.not_before, clock.now + longest),
        }
        if right != {"created_at": row.created_at, "not_before": row.not_before}:
            yield row.id, right
