"""``queue``: the jobs, the slots, and what each job waits for."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from loopscope.context import CommandError, now
from loopscope.reports.text_table import TextTable
from loopscope.state.db import pauses
from loopscope.terminal.columns import show
from loopscope.views.documents.queue import queue_document
from loopscope.views.jobs import job_detail
from loopscope.views.numbers import MISSING, age, byte_size
from loopscope.views.queue import JobInQueue, QueueView, Upstream, Waiting

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
    from loopscope.controller.jobs.queue_view import read_view
    from loopscope.controller.settings import Settings  # late: help must stay quick

    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    state = context.obj.open_to_read()
    settings = Settings(**settings_of_file(context.obj.state_path))
    with state.database.read() as connection:
        view = read_view(connection, state.path, settings, now(), ended=everything)
    if context.obj.namespace_given:
        view = view.of_namespace(context.obj.namespace)
    if output == "json":
        print(json.dumps(queue_document(view), indent=2))
        return
    for line in _head(view):
        print(line)
    if view.jobs or view.upstream:
        rows = [_row(one, view.now) for one in view.jobs]
        show(TextTable(COLUMNS, rows + [_upstream(one, view.now) for one in view.upstream]))
    else:
        print("No jobs." if everything else "No jobs run or wait.")


def _head(view: QueueView) -> list[str]:
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
    for scope, since in view.paused.items():
        lines.append(f"Paused: {pauses.in_words(scope)}, for {age(view.now - since)}.")
    if view.needs_restart:
        lines.append("Restart the controller: the files of Loopscope changed while it was running.")
    if view.leader is None:
        lines.append("No controller runs: loopscope run or loopscope controller starts jobs.")
    return lines


def _row(one: JobInQueue, now: float) -> list[str]:
    job, waiting = one.job, one.waiting
    return [
        str(job.id),
        job.stage,
        job.state,
        str(job.object),
        one.priority or MISSING,
        _waits_for(waiting, now),
        str(job.attempts),
        age(now - job.created_at),
        job_detail(job, one.progress, now=now, waits_for=waiting.message if waiting else None),
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
