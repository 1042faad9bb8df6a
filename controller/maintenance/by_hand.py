"""Work of objects changed by hand: retry, cancel, hold back, let go, make again.

Commands and the server call it in one write transaction, and show the lines that it returns.
"""

from __future__ import annotations

from collections.abc import Sequence

from loopscope.controller.maintenance.rerunning import rerun_stages
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db import events, jobs, objects, pauses
from loopscope.state.db.connection import Connection
from loopscope.state.failures import TerminalFailure
from loopscope.state.records import CANCELLED, ObjectRecord
from loopscope.views.stages import descendants


def with_work(connection: Connection, found: Sequence[ObjectRecord]) -> list[ObjectRecord]:
    """Return objects that have jobs: stages themselves, of an owner those below it."""
    kept: list[ObjectRecord] = []
    for one in found:
        below = descendants(connection, [one]) if one.key.kind in OWNER_KINDS else [one]
        kept.extend(stage for stage in below if stage.key.kind not in OWNER_KINDS)
    return kept


def retry(connection: Connection, records: Sequence[ObjectRecord], *, now: float) -> list[str]:
    """Queue the failed or cancelled jobs of stages again; return a line for each."""
    lines = []
    for record in records:
        job = jobs.find_latest(connection, record.wanted_digest or "")
        if job is None or job.state not in ("failed", "cancelled"):
            lines.append(f"{record.key}: no failed job")
            continue
        new = jobs.retry(connection, job.id, now=now)
        message = f"job {job.id} is retried as job {new}"
        events.record(connection, record.key, "Normal", "Retried", message, now=now)
        lines.append(f"{record.key}: {message}")
    return lines


def cancel(connection: Connection, records: Sequence[ObjectRecord], *, now: float) -> list[str]:
    """Cancel the jobs of stages that run or wait; return a line for each stage."""
    lines = []
    for record in records:
        job = jobs.find_active(connection, record.wanted_digest or "")
        if job is None:
            lines.append(f"{record.key}: no job runs or waits")
            continue
        kind, name = record.key.kind.lower(), record.key.name
        why = f"cancelled by hand; loopscope retry {kind} {name} starts it again"
        jobs.cancel(connection, job.id, CANCELLED, why, now=now)
        message = f"{job.stage} job {job.id} was cancelled by hand"
        events.record(connection, record.key, "Normal", CANCELLED, message, now=now)
        others = [key for key in objects.wanting(connection, job.digest) if key != record.key]
        lines.append(f"{record.key}: {message}{_also(others)}")
    return lines


def rerun(
    connection: Connection,
    artifacts: ArtifactStore,
    experiment: ObjectRecord,
    start: str,
    *,
    now: float,
) -> list[str]:
    """Set the artifacts of a stage and of those after it aside; raises TerminalFailure."""
    done = rerun_stages(connection, artifacts, experiment, start, now=now)
    return [f"{one.key}: {one.what}{_also(one.shared_with)}" for one in done]


def pause(connection: Connection, scope: str, *, now: float) -> list[str]:
    """Start no job of a scope until it is resumed; return what was done."""
    new = pauses.pause(connection, scope, now=now)
    return [f"{pauses.in_words(scope)} {'paused' if new else 'was paused before'}"]


def resume(connection: Connection, scope: str | None) -> list[str]:
    """End the pause of a scope, of None every pause; raises TerminalFailure if there is none."""
    ended = pauses.resume(connection, scope)
    if ended:
        return [f"{pauses.in_words(one)} resumed" for one in ended]
    left = pauses.listed(connection)
    others = f"; paused are {', '.join(map(pauses.in_words, left))}" if left else "; nothing is"
    named = pauses.in_words(scope or pauses.EVERYTHING)
    raise TerminalFailure("NotPaused", f"{named} is not paused{others}")


def _also(others: list[Key]) -> str:
    return f" (also wanted by {', '.join(map(str, others))})" if others else ""
