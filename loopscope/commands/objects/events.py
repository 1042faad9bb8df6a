"""``events``: what happened."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from loopscope.commands.object_words import complete_object
from loopscope.context import CommandError, find_one, kind_of, now, split_name
from loopscope.reports.tables.events import EVENT_COLUMNS, event_row
from loopscope.reports.text_table import TextTable
from loopscope.specs.keys import Key
from loopscope.state.db import events
from loopscope.state.db.connection import Connection
from loopscope.state.records import EventRecord
from loopscope.terminal.columns import show
from loopscope.terminal.printable import printable

EVENTS_POLL_SECONDS = 0.5

EXAMPLES = {
    "events": ("events", "events experiment france --watch"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("events")(list_events)


def list_events(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND NAME]", help="Only of this object.", autocompletion=complete_object
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on, and print what happens.")
    ] = False,
) -> None:
    """Print what happened, newest last; repeats are counted."""
    key: Key | None = None
    state = context.obj.open_to_read()
    with state.database.read() as connection:
        if words:
            kind, name = split_name(words)
            if name is None:
                raise CommandError("name the object too: loopscope events KIND NAME")
            key = find_one(connection, kind_of(kind), context.obj.namespace, name).key
        seen = _events(connection, key, context.obj.only_namespace)
    show(TextTable(EVENT_COLUMNS, [_event_row(event) for event in seen]))
    printed = {(e.key, e.reason, e.message): e.count for e in seen}
    while watch:
        time.sleep(EVENTS_POLL_SECONDS)
        with state.database.read() as connection:
            seen = _events(connection, key, context.obj.only_namespace)
        for e in seen:
            if printed.get((e.key, e.reason, e.message)) != e.count:
                print("   ".join(_event_row(e)), flush=True)
        printed = {(e.key, e.reason, e.message): e.count for e in seen}


def _events(connection: Connection, key: Key | None, namespace: str | None) -> list[EventRecord]:
    """Return the events of an object, else of the namespace that was asked for, else all."""
    seen = events.listed(connection, key)
    return [e for e in seen if namespace is None or e.key.namespace == namespace]


def _event_row(event: EventRecord) -> list[str]:
    return [" ".join(printable(cell).split()) for cell in event_row(event, now=now())]
