"""The table of ``queue``: limits in sentences, jobs and what each waits for in rows."""

from __future__ import annotations

from loopscope.reports.text_table import TextTable
from loopscope.state.db import pauses
from loopscope.views.jobs import job_detail
from loopscope.views.numbers import MISSING, age, byte_size
from loopscope.views.queue import JobInQueue, QueueView, Upstream, Waiting

QUEUE_COLUMNS = [
    *("ID", "STAGE", "STATE", "OBJECT", "PRIORITY", "WAITS-FOR", "ATTEMPTS", "AGE", "DETAIL"),
]


def queue_table(view: QueueView) -> TextTable:
    """Return the jobs in their order, then what waits for another object."""
    rows = [_row(one, view.now) for one in view.jobs]
    return TextTable(QUEUE_COLUMNS, rows + [_upstream(one, view.now) for one in view.upstream])


def queue_lines(view: QueueView) -> list[str]:
    """Return a line for each limit that matters now."""
    taken = ", ".join(f"{u.taken} of {u.total} on {name}" for name, u in view.slots.items())
    starts = view.starts
    burst = f", at most {starts.burst} at once" if starts.burst is not None else ""
    lines = [
        f"Slots: {taken} taken. "
        f"Starts: {starts.last_minute} of {starts.per_minute} in the last minute{burst}."
    ]
    for device, memory in view.memory.items():
        used = f"{byte_size(memory.taken)} of {byte_size(memory.total)}"
        lines.append(f"Memory on {device}: {used}.")
    for namespace, quota in view.quotas.items():
        held = [
            f"{usage.taken} of {usage.total} slots"
            if name == "slots"
            else f"{byte_size(usage.taken)} of {byte_size(usage.total)} stored"
            for name, usage in quota.items()
        ]
        lines.append(f"Quota of {namespace}: {', '.join(held) or 'nothing is limited'}.")
    for scope, since in view.paused.items():
        lines.append(f"Paused: {pauses.in_words(scope)}, for {age(view.now - since)}.")
    if view.needs_restart:
        lines.append("Restart the controller: the files of Loopscope changed while it was running.")
    if view.leader is None:
        lines.append("No controller runs: loopscope run or loopscope controller starts jobs.")
    return lines


def _row(one: JobInQueue, now: float) -> list[str]:
    job, waiting = one.job, one.waiting
    which = one.share.words if one.share is not None else ""
    doing = job_detail(
        job,
        one.progress,
        now=now,
        waits_for=waiting.message if waiting else None,
        makes_room_for=one.makes_room_for,
    )
    return [
        str(job.id),
        job.stage,
        job.state,
        str(job.object),
        one.priority or MISSING,
        _waits_for(waiting, now),
        str(job.attempts),
        age(now - job.created_at),
        "; ".join(word for word in (which, doing) if word),
    ]


def _waits_for(waiting: Waiting | None, now: float) -> str:
    """Return the reason in a word; a time where it is known."""
    if waiting is None:
        return MISSING
    until = f" {age(waiting.until - now)}" if waiting.until is not None else ""
    return f"{waiting.reason}{until}"


def _upstream(one: Upstream, now: float) -> list[str]:
    word = "Upstream" if one.reason == "InputsNotReady" else "Input"
    stage = one.key.kind.lower()
    return [
        *(MISSING, stage, "waiting", str(one.key), MISSING, word, MISSING),
        *(age(now - one.since), one.message),
    ]
