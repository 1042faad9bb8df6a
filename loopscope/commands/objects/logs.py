"""``logs``: the lines that workers logged about an object's jobs."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from loopscope.commands.object_words import complete_object
from loopscope.commands.options import read_duration
from loopscope.context import CommandError, find, now, split_name
from loopscope.state.db import jobs
from loopscope.state.folder import StateFolder
from loopscope.state.workers import log_paths
from loopscope.terminal.printable import printable
from loopscope.views.worker_logs import WorkerLogReader, action_digests

POLL_SECONDS = 0.5

EXAMPLES = {
    "logs": (
        "logs experiment france --tail 20",
        "logs experiment france --since 10m --timestamps",
        "logs capture/france-capture --follow",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("logs")(logs)


def logs(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="KIND NAME", help="The object, or experiment.", autocompletion=complete_object
        ),
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", min=0, help="Only so many of the last lines.")
    ] = None,
    since: Annotated[
        float | None,
        typer.Option(
            "--since",
            metavar="TIME",
            parser=read_duration,
            help="Only lines of the last 90s, 10m, 2h.",
        ),
    ] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Begin every line with its time in UTC.")
    ] = False,
) -> None:
    """Print what the workers wrote while they ran the jobs of an object, or of all it owns."""
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"logs needs a name: loopscope logs {kind.lower()} NAME")
    state = context.obj.open_to_read()
    digests = _digests(state, kind, context.obj.namespace, name)
    earliest = now() - since if since is not None else None
    files = [_reader(path, earliest, timestamps) for path in log_paths(state.logs)]
    lines = [line for file in files for line in file.new_lines(digests)]
    if not lines and not follow:
        when = "" if since is None else " in that time"
        print(f"nothing was written about {kind.lower()}/{name}{when}; worker logs: {state.logs}")
    for line in lines if tail is None else deque(lines, tail):
        print(printable(line))
    while follow and _works(state, digests):
        known = {file.path for file in files}
        new = (path for path in log_paths(state.logs) if path not in known)
        files.extend(_reader(path, earliest, timestamps) for path in new)
        for file in files:
            for line in file.new_lines(digests):
                print(printable(line), flush=True)
        time.sleep(POLL_SECONDS)
        digests |= _digests(state, kind, context.obj.namespace, name)
    for file in files if follow else ():
        for line in file.new_lines(digests):
            print(printable(line))


def _reader(path: Path, earliest: float | None, timestamps: bool) -> WorkerLogReader:
    return WorkerLogReader(path, earliest, timestamps)


def _digests(state: StateFolder, kind: str, namespace: str, name: str) -> set[str]:
    with state.database.read() as connection:
        keys = [record.key for record in find(connection, kind, namespace, name)]
        return action_digests(connection, keys)


def _works(state: StateFolder, digests: set[str]) -> bool:
    with state.database.read() as connection:
        return any(job.digest in digests for job in jobs.listed(connection))
