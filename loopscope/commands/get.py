"""``get``, ``describe`` and ``events``: what exists."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from typing import Annotated

import typer

from loopscope.commands.options import OutputOption
from loopscope.context import CommandError, all_owned_by, find, find_one, kind_of, now, split_name
from loopscope.reports.tables.listing import listing
from loopscope.reports.text_table import TextTable
from loopscope.selectors import Selector, parse_selector
from loopscope.specs.keys import Key
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import events, jobs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import EventRecord, ObjectRecord
from loopscope.terminal.columns import show
from loopscope.terminal.printable import printable
from loopscope.views.documents.objects import (
    ListDocument,
    ObjectDocument,
    list_document,
    object_document,
)
from loopscope.views.numbers import age
from loopscope.views.present import present, present_jobs
from loopscope.views.stages import by_owner

EVENTS_POLL_SECONDS = 0.5
_OTHER_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""Line ends to YAML, or forbidden there. What is printed as JSON is applied as YAML."""
Select = Callable[[Connection], list[ObjectRecord]]
Words = Annotated[
    list[str],
    typer.Argument(
        metavar="KIND [NAME]", help="For example `experiment france` or `experiment/france`."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("get")(get)
    app.command("describe")(describe)
    app.command("events")(list_events)


def get(
    context: typer.Context,
    words: Words,
    output: OutputOption = None,
    selector: Annotated[
        str | None,
        typer.Option("--selector", "-l", help="Labels: a=b,c!=d,e in (f,g),h,!i."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on, and print what changes.")
    ] = False,
) -> None:
    """Print objects: one line each, in full with -o yaml or json, or parts with -o jsonpath=…."""
    _check_output(output)
    kind, name = split_name(words)
    namespace = context.obj.namespace
    fits = _selector(selector)

    def select(connection: Connection) -> list[ObjectRecord]:
        if name is not None:
            found = find(connection, kind, namespace, name)
        else:
            found = objects.listed(connection, kind, namespace)
        return [record for record in found if fits(record.labels)]

    state = context.obj.open_to_read()
    if watch:
        _watch(state, kind, namespace, select, output, single=name is not None)
        return
    with state.database.read() as connection:
        records = present(connection, select(connection))
        owned = _owned(connection, records, namespace, single=name is not None)
    if output in (None, "wide") and not records:
        print(f"No {kind.lower()}s found in namespace {namespace}.")
    elif output in (None, "wide"):
        show(listing(kind, records, now=now(), children=owned, wide=output == "wide"))
        for record in records:
            refused = record.status.condition("SourceValid")
            if refused is not None:
                print(f"{record.key}: its file is refused: {refused.message}", file=sys.stderr)
    else:
        _print_documents(records, output, single=name is not None)


def _owned(
    connection: Connection, records: list[ObjectRecord], namespace: str, *, single: bool
) -> dict[str, list[ObjectRecord]]:
    """Return what experiments own, by their uid; nothing else owns anything."""
    if not any(record.key.kind == "Experiment" for record in records):
        return {}
    if not single:
        return by_owner(present(connection, objects.listed(connection, namespace=namespace)))
    owned = [one for record in records for one in all_owned_by(connection, record)]
    return by_owner(present(connection, owned))


def _watch(
    state: StateFolder, kind: str, namespace: str, select: Select, output: str | None, single: bool
) -> None:
    """Print what there is, then what changes, until interrupted."""
    from loopscope.terminal.watching import POLL_SECONDS, WatchedTable, changes_of

    if output not in (None, "wide"):
        for records in changes_of(state, _or_nothing(select)):
            for record in records:
                _print_documents([record], output, single=True)
        return
    with state.database.read() as connection:
        select(connection)  # raises with what is wrong with the name
    table = WatchedTable(state, kind, namespace, _or_nothing(select), output == "wide")
    while True:
        for line in table.lines():
            print(line, flush=True)
        time.sleep(POLL_SECONDS)


def _or_nothing(select: Select) -> Select:
    """A named object that goes away while it is watched is gone, not a mistake."""

    def found(connection: Connection) -> list[ObjectRecord]:
        try:
            return select(connection)
        except CommandError:
            return []

    return found


def _check_output(output: str | None) -> None:
    known = (None, "wide", "json", "yaml", "name")
    if output not in known and not (output or "").startswith("jsonpath="):
        raise CommandError(
            f"unknown output {output!r}; expected json, yaml, name, wide or jsonpath=TEMPLATE"
        )


def _print_documents(records: list[ObjectRecord], output: str | None, *, single: bool) -> None:
    if output == "name":
        for record in records:
            print(record.key, flush=True)
        return
    one = single and len(records) == 1
    document: ObjectDocument | ListDocument = (
        object_document(records[0]) if one else list_document(records)
    )
    if output == "json":
        text = json.dumps(document, indent=2, ensure_ascii=False)
        print(_OTHER_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text), flush=True)
    elif output == "yaml":
        import yaml  # late: a table must come quickly

        print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip(), flush=True)
    else:
        from loopscope.jsonpath import render

        try:
            text = render((output or "").removeprefix("jsonpath="), document)
        except ValueError as error:
            raise CommandError(f"--output jsonpath: {error}") from None
        except LookupError as error:
            raise CommandError(f"--output jsonpath: {error}", 1) from None
        print(text, end="" if text.endswith("\n") or not text else "\n", flush=True)


def describe(context: typer.Context, words: Words) -> None:
    """Print one object with its conditions, artifact, jobs and events."""
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"describe needs a name: loopscope describe {kind.lower()} NAME")
    with context.obj.open_to_read().database.read() as connection:
        found = present(connection, find(connection, kind, context.obj.namespace, name))
        texts = [_described(connection, record) for record in found]
    print(printable("".join(texts)), end="")


def _described(connection: Connection, record: ObjectRecord) -> str:
    from loopscope.reports.tables.describe import describe_text  # late: `get` must stay quick

    digest = record.wanted_digest
    ours = [j for j in jobs.listed(connection, ended=True) if j.digest == digest]
    artifact = artifact_index.get(connection, digest) if digest else None
    children = present(connection, objects.owned_by(connection, record.uid))
    seen = events.listed(connection, record.key)
    ours = present_jobs(connection, ours)
    return describe_text(record, seen, ours, artifact, now=now(), children=children)


def list_events(
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND NAME]", help="Only of this object.")
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
    columns = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE"]
    show(TextTable(columns, [_event_row(event) for event in seen]))
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
    seen = age(now() - event.last_seen_at)
    row = [seen, event.type, event.reason, str(event.key), str(event.count), event.message]
    return [" ".join(printable(cell).split()) for cell in row]


def _selector(text: str | None) -> Selector:
    try:
        return parse_selector(text or "")
    except ValueError as error:
        raise CommandError(f"--selector {error}") from None
