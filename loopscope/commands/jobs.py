"""``retry``, ``cancel`` and ``rerun``: what happens to the work of an object."""

from __future__ import annotations

from typing import Annotated

import typer

from loopscope.context import CommandError, find, find_one, now, split_name
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import NODE_NAMES
from loopscope.state.db import events, jobs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.records import CANCELLED, ObjectRecord

Words = Annotated[
    list[str], typer.Argument(metavar="KIND NAME", help="Whose jobs; of an experiment, all stages.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("retry")(retry)
    app.command("cancel")(cancel)
    app.command("rerun")(rerun)


def retry(context: typer.Context, words: Words) -> None:
    """Queue the failed or cancelled job of an object again."""
    lines = []
    with context.obj.open_existing().database.write() as connection:
        for record in _with_stages(connection, context, words, "retry"):
            job = jobs.find_latest(connection, record.wanted_digest or "")
            if job is None or job.state not in ("failed", "cancelled"):
                lines.append(f"{record.key}: no failed job")
                continue
            new = jobs.retry(connection, job.id, now=now())
            message = f"job {job.id} is retried as job {new}"
            events.record(connection, record.key, "Normal", "Retried", message, now=now())
            lines.append(f"{record.key}: {message}")
    _print_lines(lines)


def cancel(context: typer.Context, words: Words) -> None:
    """Cancel the jobs of an object that run or wait; they start again only by retry or an edit."""
    lines = []
    with context.obj.open_existing().database.write() as connection:
        for record in _with_stages(connection, context, words, "cancel"):
            job = jobs.find_active(connection, record.wanted_digest or "")
            if job is None:
                lines.append(f"{record.key}: no job runs or waits")
                continue
            kind, name = record.key.kind.lower(), record.key.name
            why = f"cancelled by hand; loopscope retry {kind} {name} starts it again"
            jobs.cancel(connection, job.id, CANCELLED, why, now=now())
            message = f"{job.stage} job {job.id} was cancelled by hand"
            events.record(connection, record.key, "Normal", CANCELLED, message, now=now())
            others = [key for key in objects.wanting(connection, job.digest) if key != record.key]
            lines.append(f"{record.key}: {message}{_also(others)}")
    _print_lines(lines)


def rerun(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of an experiment.")],
    start: Annotated[
        str,
        typer.Option("--from", help=f"This stage and later ones: {', '.join(NODE_NAMES)}."),
    ] = NODE_NAMES[0],
) -> None:
    """Make the artifacts of an experiment's stages again; the old ones are set aside."""
    from loopscope.controller.maintenance.rerunning import (
        rerun_stages,  # late: help must stay quick
    )

    if start not in NODE_NAMES:
        raise CommandError(f"unknown stage {start!r}; expected one of {', '.join(NODE_NAMES)}")
    state = context.obj.open_existing()
    with state.database.write() as connection:
        record = find_one(connection, "Experiment", context.obj.namespace, name)
        done = rerun_stages(connection, state.artifacts, record, start, now=now())
    _print_lines([f"{one.key}: {one.what}{_also(one.shared_with)}" for one in done])


def _print_lines(lines: list[str]) -> None:
    """Print what was done. After the transaction: the reader of the output may be slow, or gone."""
    for line in lines:
        print(line)


def _with_stages(
    connection: Connection, context: typer.Context, words: list[str], command: str
) -> list[ObjectRecord]:
    """Return the named objects; of an experiment its stages, for they have the jobs."""
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"{command} needs a name: loopscope {command} {kind.lower()} NAME")
    found = find(connection, kind, context.obj.namespace, name)
    if kind != "Experiment":
        return found
    return [child for one in found for child in objects.owned_by(connection, one.uid)]


def _also(others: list[Key]) -> str:
    return f" (also wanted by {', '.join(map(str, others))})" if others else ""
