"""``get``, ``describe`` and ``events``: what exists."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
import yaml

from loopscope.commands.options import OutputOption
from loopscope.context import CommandError, find, find_one, kind_of, now, split_name
from reports.describe import describe_text
from reports.documents import list_document, object_document
from reports.listing import Listing, by_owner, listing
from reports.numbers import age
from specs.keys import Key
from state import artifact_index, events, jobs, objects
from state.records import ObjectRecord

Words = Annotated[list[str], typer.Argument(metavar="KIND [NAME]")]


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
        str | None, typer.Option("--selector", "-l", help="Labels, as in a=b,c=d.")
    ] = None,
) -> None:
    """Print objects: one line each, or in full with -o yaml or json."""
    if output not in (None, "wide", "json", "yaml", "name"):
        raise CommandError(f"unknown output {output!r}; expected json, yaml, name or wide")
    kind, name = split_name(words)
    namespace = context.obj.namespace
    with context.obj.open_existing().database.read() as connection:
        if name is not None:
            records = find(connection, kind, namespace, name)
        else:
            records = objects.listed(connection, kind, namespace)
        owned = by_owner(objects.listed(connection, namespace=namespace))
    records = [record for record in records if _selected(record, selector)]
    if output in ("json", "yaml"):
        print(_document(records, output, single=name is not None))
    elif output == "name":
        for record in records:
            print(record.key)
    elif not records:
        print(f"No {kind.lower()}s found in namespace {namespace}.")
    else:
        show(listing(kind, records, now=now(), children=owned, wide=output == "wide"))


def describe(context: typer.Context, words: Words) -> None:
    """Print one object with its conditions, artifact, jobs and events."""
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"describe needs a name: loopscope describe {kind.lower()} NAME")
    with context.obj.open_existing().database.read() as connection:
        for record in find(connection, kind, context.obj.namespace, name):
            digest = record.wanted_digest
            ours = [j for j in jobs.listed(connection, ended=True) if j.digest == digest]
            artifact = artifact_index.get(connection, digest) if digest else None
            children = objects.owned_by(connection, record.uid)
            seen = events.listed(connection, record.key)
            print(describe_text(record, seen, ours, artifact, now=now(), children=children), end="")


def list_events(
    context: typer.Context, words: Annotated[list[str] | None, typer.Argument()] = None
) -> None:
    """Print what happened, newest last; repeats are counted."""
    key: Key | None = None
    with context.obj.open_existing().database.read() as connection:
        if words:
            kind, name = split_name(words)
            if name is None:
                raise CommandError("name the object too: loopscope events KIND NAME")
            key = find_one(connection, kind_of(kind), context.obj.namespace, name).key
        seen = events.listed(connection, key)
    rows = [
        [age(now() - e.last_seen_at), e.type, e.reason, str(e.key), str(e.count), e.message]
        for e in seen
    ]
    show(Listing(["LAST SEEN", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE"], rows))


def show(table: Listing) -> None:
    """Print a table as kubectl does: padded columns, nothing cut off."""
    widths = [
        max(len(cell) for cell in column) for column in zip(table.columns, *table.rows, strict=True)
    ]
    for row in [table.columns, *table.rows]:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("   ".join(padded).rstrip())


def _selected(record: ObjectRecord, selector: str | None) -> bool:
    for term in (selector or "").split(","):
        name, equals, value = term.partition("=")
        if term and not equals:
            raise CommandError(f"--selector {term!r}: expected name=value")
        if term and record.labels.get(name.strip()) != value.lstrip("=").strip():
            return False
    return True


def _document(records: list[ObjectRecord], output: str, *, single: bool) -> str:
    one = single and len(records) == 1
    document: Any = object_document(records[0]) if one else list_document(records)
    if output == "json":
        return json.dumps(document, indent=2, ensure_ascii=False)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip()
