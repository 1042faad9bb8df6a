"""``rollout``: the specs that an object had, and the way back to one of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, cast

import typer

from loopscope.commands.command_line import Application, Group
from loopscope.commands.object_words import complete_object
from loopscope.commands.options import ConfirmOption
from loopscope.context import CommandError, Globals, find_one, now, split_name
from loopscope.reports.text_table import TextTable
from loopscope.specs.json_values import JsonObject
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord
from loopscope.terminal.columns import show
from loopscope.terminal.documents import yaml_text
from loopscope.terminal.printable import printable
from loopscope.views.numbers import age, iso

if TYPE_CHECKING:
    from loopscope.views.history import Revision

COLUMNS = ["REVISION", "AGE", "CHANGES"]
CHANGES_SHOWN = 3
Words = Annotated[
    list[str],
    typer.Argument(metavar="KIND NAME", help="Which object.", autocompletion=complete_object),
]

EXAMPLES = {
    "rollout": (
        "rollout history experiment france",
        "rollout undo experiment france --to-revision 3",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the group with its commands."""
    group = Application(cls=Group, no_args_is_help=True, help="Earlier specs of an object.")
    group.command("history")(history)
    group.command("undo")(undo)
    app.add_typer(group, name="rollout")


def history(
    context: typer.Context,
    words: Words,
    number: Annotated[
        int | None, typer.Option("--revision", help="Print the spec of this one.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="json or yaml.")] = None,
) -> None:
    """Print the specs that an object had, what changed from one to the next, or one of them."""
    if output not in (None, "json", "yaml"):
        raise CommandError(f"unknown output {output!r}; expected json or yaml")
    _, record, found = _read(context.obj, words)
    if number is not None:
        _print(_numbered(found, number, record).spec, output or "yaml")
    elif output is not None:
        _print([_document(one) for one in found], output)
    else:
        show(TextTable(COLUMNS, [_row(one) for one in found]))


def undo(
    context: typer.Context,
    words: Words,
    number: Annotated[
        int | None,
        typer.Option("--to-revision", help="This spec; without it, the one before the present."),
    ] = None,
    confirm: ConfirmOption = False,
) -> None:
    """Store an earlier spec again, with the checks and confirmations of an apply."""
    from loopscope.commands.applying.editing import editable, store_documents

    state, record, found = _read(context.obj, words)
    if number is None:
        if len(found) < 2:
            raise CommandError(f"{record.key} has no earlier spec", 1)
        chosen = found[-2]
    else:
        chosen = _numbered(found, number, record)
    document: JsonObject = {**editable(record), "spec": cast(JsonObject, dict(chosen.spec))}
    store_documents(state, [document], {record.key: record}, confirm=confirm)


def _read(given: Globals, words: list[str]) -> tuple[StateFolder, ObjectRecord, list[Revision]]:
    from loopscope.views.history import history_of

    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"name the object, too: {kind.lower()} NAME")
    state = given.open_existing()
    with state.database.read() as connection:
        record = find_one(connection, kind, given.namespace, name)
        if record.owner is not None:
            raise CommandError(f"{record.key} follows from {record.owner}; look at that one", 1)
        return state, record, history_of(connection, record)


def _numbered(found: list[Revision], number: int, record: ObjectRecord) -> Revision:
    for one in found:
        if one.number == number:
            return one
    kept = ", ".join(str(one.number) for one in found)
    raise CommandError(f"{record.key} has no revision {number}; kept are {kept}", 1)


def _row(one: Revision) -> list[str]:
    since = age(now() - one.since) if one.since is not None else "-"
    return [str(one.number), since, printable(" ".join(_words(one).split()))]


def _words(one: Revision) -> str:
    if one.number == 1:
        return "created"
    if one.changes is None:
        return "the one before is not kept"
    shown = [f"{c.field}: {_short(c.before)} -> {_short(c.after)}" for c in one.changes]
    more = len(shown) - CHANGES_SHOWN
    return "; ".join(shown[:CHANGES_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _short(value: object) -> str:
    text = "not there" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]} …"


def _document(one: Revision) -> dict[str, object]:
    changes = one.changes
    return {
        "revision": one.number,
        "since": iso(one.since),
        "current": one.is_current,
        "changes": None
        if changes is None
        else [{"field": c.field, "before": c.before, "after": c.after} for c in changes],
    }


def _print(document: object, output: str) -> None:
    if output == "json":
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return
    print(printable(yaml_text(document)), end="")
