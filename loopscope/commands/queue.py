"""``queue`` and ``retry``: the jobs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from loopscope.commands.get import show
from loopscope.context import CommandError, find, now, split_name
from reports.documents import job_document, remaining_seconds, speed, token_speed
from reports.listing import Listing
from reports.numbers import age
from state import events, jobs
from state.records import WAITS_FOR_SPACE, JobRecord, Progress


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("queue")(queue)
    app.command("retry")(retry)


def queue(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Ended jobs, too.")] = False,
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
) -> None:
    """Print the jobs that run or wait, and why they wait."""
    with context.obj.open_existing().database.read() as connection:
        found = jobs.listed(connection, ended=everything)
        progress = jobs.progress_of(connection)
    if output == "json":
        print(json.dumps([job_document(j, progress.get(j.id)) for j in found], indent=2))
    elif output is not None:
        raise CommandError(f"unknown output {output!r}; expected json")
    elif not found:
        print("No jobs." if everything else "No jobs run or wait.")
    else:
        columns = ["ID", "STAGE", "STATE", "OBJECT", "ATTEMPTS", "AGE", "DETAIL"]
        show(Listing(columns, [_row(job, progress.get(job.id)) for job in found]))


def retry(
    context: typer.Context, words: Annotated[list[str], typer.Argument(metavar="KIND NAME")]
) -> None:
    """Queue the failed job of an object again."""
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"retry needs a name: loopscope retry {kind.lower()} NAME")
    with context.obj.open_existing().database.write() as connection:
        for record in find(connection, kind, context.obj.namespace, name):
            job = jobs.find_latest(connection, record.wanted_digest or "")
            if job is None or job.state not in ("failed", "cancelled"):
                print(f"{record.key}: no failed job")
                continue
            new = jobs.retry(connection, job.id, now=now())
            message = f"job {job.id} is retried as job {new}"
            events.record(connection, record.key, "Normal", "Retried", message, now=now())
            print(f"{record.key}: {message}")


def _row(job: JobRecord, progress: Progress | None) -> list[str]:
    return [
        str(job.id),
        job.stage,
        job.state,
        str(job.object),
        str(job.attempts),
        age(now() - job.created_at),
        job_detail(job, progress),
    ]


def _speed_words(progress: Progress) -> str:
    """Return the speed in words, where there is more than one thing to do."""
    tokens = token_speed(progress)
    if tokens is not None:
        return f", {tokens:,.0f} tokens/s"
    rate = speed(progress)
    return f", {rate:.1f} {progress.unit}/s" if rate is not None and progress.total > 1 else ""


def job_detail(job: JobRecord, progress: Progress | None) -> str:
    """Return in words what a job does or waits for."""
    match job.state:
        case "running" if progress is not None:
            left = remaining_seconds(progress)
            eta = f", {age(left)} left" if left is not None and left >= 1 else ""
            done = f"{progress.done}/{progress.total} {progress.unit}"
            return f"{progress.phase} {done}{_speed_words(progress)}{eta}"
        case "pending" if job.not_before > now():
            return f"retry in {age(job.not_before - now())} after {job.reason}: {job.message}"
        case "pending" if job.reason in WAITS_FOR_SPACE:
            return f"no free space: {job.reason}: {job.message}"
        case "pending":
            return "waits for a worker slot"
        case _:
            return ": ".join(word for word in (job.reason, job.message) if word)
