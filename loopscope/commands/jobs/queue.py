"""``queue``: the jobs, the slots, and what each job waits for."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Hashable
from typing import Annotated, NoReturn

import typer

from loopscope.context import CommandError, now
from loopscope.reports.tables.queue import queue_lines, queue_table
from loopscope.specs.keys import Key
from loopscope.state.db import jobs
from loopscope.state.folder import StateFolder
from loopscope.terminal.columns import show
from loopscope.views.documents.queue import queue_document
from loopscope.views.queue import QueueView

EXAMPLES = {
    "queue": ("queue", "queue --watch", "queue --all -o json"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("queue")(queue)


def queue(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Ended jobs, too.")] = False,
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on, and print the jobs that change.")
    ] = False,
) -> None:
    """Print slots and limits, the jobs that run or wait, and why they wait."""
    from loopscope.commands.limit_options import settings_of_file
    from loopscope.controller.jobs.queue_view import read_view
    from loopscope.controller.settings import Settings  # late: help must stay quick

    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    if watch and output is not None:
        raise CommandError("--watch prints a table; leave out --output")
    state = context.obj.open_to_read()
    settings = Settings(**settings_of_file(context.obj.state_path))
    namespace = context.obj.only_namespace

    def look() -> QueueView:
        with state.database.read() as connection:
            view = read_view(connection, state.path, settings, now(), ended=everything)
        return view if namespace is None else view.of_namespace(namespace)

    if watch:
        _watch(state, look)
    view = look()
    if output == "json":
        print(json.dumps(queue_document(view), indent=2))
        return
    for line in queue_lines(view):
        print(line)
    if view.jobs or view.upstream:
        show(queue_table(view))
    else:
        print("No jobs." if everything else "No jobs run or wait.")


def _watch(state: StateFolder, look: Callable[[], QueueView]) -> NoReturn:
    """Print the limits when they change and each job when it does, until interrupted."""
    from loopscope.terminal.watching import POLL_SECONDS, ChangedRows

    rows = ChangedRows(slow=("DETAIL", "WAITS-FOR"))
    head: list[str] = []

    def farewell(key: Hashable) -> str:
        if isinstance(key, Key):
            return f"{key} waits for nothing else any more"
        with state.database.read() as connection:
            job = jobs.head(connection, int(str(key)))
        return f"job {key} {job.state if job is not None else 'is gone'}"

    while True:
        view = look()
        before, head = head, queue_lines(view)
        for line in [line for line in head if line not in before]:
            print(line)
        keys = [one.job.id for one in view.jobs]
        for line in rows.lines(
            queue_table(view), [*keys, *(one.key for one in view.upstream)], farewell
        ):
            print(line)
        sys.stdout.flush()
        time.sleep(POLL_SECONDS)
