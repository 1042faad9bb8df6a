"""``queue``: the jobs, the slots, and what each job waits for."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from loopscope.commands.get import show
from loopscope.context import CommandError, now
from loopscope.reports.tables.listing import Listing
from loopscope.state.db import pauses
from loopscope.state.records import (
    CODE_CHANGED,
    WAITS_FOR_SPACE,
    JobHead,
    ObjectRecord,
    Progress,
)
from loopscope.views.documents import job_document, remaining_seconds, speed, token_speed
from loopscope.views.numbers import MISSING, age, byte_size, iso

COLUMNS = ["ID", "STAGE", "STATE", "OBJECT", "PRIORITY", "WAITS-FOR", "ATTEMPTS", "AGE", "DETAIL"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("queue")(queue)


def queue(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Ended jobs, too.")] = False,
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
) -> None:
    """Print slots and limits, the jobs that run or wait, and why they wait."""
    from loopscope.commands.limit_options import settings_of_file
    from loopscope.controller.settings import Settings  # late: `get` must stay quick
    from loopscope.queue_view import read_view

    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    state = context.obj.open_to_read()
    settings = Settings(**settings_of_file(context.obj.state_path))
    with state.database.read() as connection:
        view = read_view(connection, state.path, settings, now(), ended=everything)
    if context.obj.namespace_given:
        view = view.of_namespace(context.obj.namespace)
    if output == "json":
        print(json.dumps(_document(view), indent=2))
        return
    for line in _head(view):
        print(line)
    if view.jobs or view.upstream:
        rows = [_row(view, job) for job in view.jobs] + [_upstream(one) for one in view.upstream]
        show(Listing(COLUMNS, rows))
    else:
        print("No jobs." if everything else "No jobs run or wait.")


def _head(view: Any) -> list[str]:
    """Return a line for each limit that matters now."""
    taken = ", ".join(f"{used} of {total} on {name}" for name, (used, total) in view.slots.items())
    limits, starts = view.settings, len(view.snapshot.starts)
    burst = f", at most {limits.burst} at once" if limits.burst is not None else ""
    lines = [
        f"Slots: {taken} taken. "
        f"Starts: {starts} of {limits.job_starts_per_minute} in the last minute{burst}."
    ]
    for device, budget in limits.memory_bytes.items():
        used = sum(one.memory_bytes for one in view.snapshot.running if one.device == device)
        lines.append(f"Memory on {device}: {byte_size(used)} of {byte_size(budget)}.")
    for scope, since in view.paused.items():
        lines.append(f"Paused: {pauses.in_words(scope)}, for {age(view.now - since)}.")
    if view.leader is not None and any(job.reason == CODE_CHANGED for job in view.jobs):
        lines.append("Restart the controller: the files of Loopscope changed while it was running.")
    if view.leader is None:
        lines.append("No controller runs: loopscope run or loopscope controller starts jobs.")
    return lines


def _row(view: Any, job: JobHead) -> list[str]:
    wait = view.waits.get(job.id)
    return [
        str(job.id),
        job.stage,
        job.state,
        str(job.object),
        view.priorities.get(job.id, MISSING),
        _waits_for(view, job),
        str(job.attempts),
        age(view.now - job.created_at),
        job_detail(job, view.progress.get(job.id), wait.message if wait else None),
    ]


def _speed_words(progress: Progress) -> str:
    """Return the speed in words, where there is more than one thing to do."""
    tokens = token_speed(progress)
    if tokens is not None:
        return f", {tokens:,.0f} tokens/s"
    rate = speed(progress)
    return f", {rate:.1f} {progress.unit}/s" if rate is not None and progress.total > 1 else ""


def _waits_for(view: Any, job: JobHead) -> str:
    """Return the reason in a word; a time where it is known."""
    if job.state != "pending":
        return MISSING
    wait = view.waits.get(job.id)
    if wait is None:
        return "Controller" if view.leader is None else "Next"
    until = f" {age(wait.until - view.now)}" if wait.until is not None else ""
    return f"{wait.reason}{until}"


def _upstream(record: ObjectRecord) -> list[str]:
    ready = record.status.condition("Ready")
    assert ready is not None  # it was chosen by its reason
    word = "Upstream" if ready.reason == "InputsNotReady" else "Input"
    stage = record.key.kind.lower()
    return [
        *(MISSING, stage, "waiting", str(record.key), MISSING, word, MISSING),
        *(age(now() - ready.last_transition_time), ready.message),
    ]


def _document(view: Any) -> dict[str, Any]:
    limits = view.settings
    return {
        "controller": view.leader and {
            "process": view.leader.process,
            "startedAt": iso(view.leader.started_at),
        },
        "slots": {n: {"taken": taken, "total": total} for n, (taken, total) in view.slots.items()},
        "starts": {
            "lastMinute": len(view.snapshot.starts),
            "perMinute": limits.job_starts_per_minute,
            "burst": limits.burst,
        },
        "memoryBytes": dict(limits.memory_bytes),
        "paused": [{"scope": scope, "since": iso(at)} for scope, at in view.paused.items()],
        "jobs": [_job(view, job) for job in view.jobs],
        "upstream": [_waiting_object(record) for record in view.upstream],
    }  # fmt: skip


def _job(view: Any, job: JobHead) -> dict[str, Any]:
    wait = view.waits.get(job.id)
    waits_for = None
    if job.state == "pending":
        waits_for = {
            "reason": wait.reason if wait else _waits_for(view, job),
            "message": wait.message if wait else None,
            "until": iso(wait.until, "milliseconds") if wait else None,
        }
    document = job_document(job, view.progress.get(job.id))
    return {**document, "priority": view.priorities.get(job.id), "waitsFor": waits_for}


def _waiting_object(record: ObjectRecord) -> dict[str, Any]:
    ready = record.status.condition("Ready")
    assert ready is not None  # it was chosen by its reason
    return {"object": str(record.key), "reason": ready.reason, "message": ready.message}


def job_detail(job: JobHead, progress: Progress | None, waits_for: str | None = None) -> str:
    """Return in words what a job does or waits for, as the scheduler says it if that is known."""
    match job.state:
        case "running" if progress is not None:
            left = remaining_seconds(progress)
            eta = f", {age(left)} left" if left is not None and left >= 1 else ""
            done = f"{progress.done}/{progress.total} {progress.unit}"
            return f"{progress.phase} {done}{_speed_words(progress)}{eta}"
        case "pending" if job.reason == CODE_CHANGED:
            return f"{job.reason}: {job.message}"
        case "pending" if job.not_before > now():
            return f"retry in {age(job.not_before - now())} after {job.reason}: {job.message}"
        case "pending" if job.reason in WAITS_FOR_SPACE:
            return f"no free space: {job.reason}: {job.message}"
        case "pending":
            return waits_for or "waits for a worker slot"
        case _:
            return ": ".join(word for word in (job.reason, job.message) if word)
