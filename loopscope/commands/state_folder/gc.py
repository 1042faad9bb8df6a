"""``gc``: what nothing needs any more. Shown first, moved to the trash with ``--yes``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from loopscope.commands.options import GraceOption, TrashOption
from loopscope.context import CommandError, now
from loopscope.reports.text_table import TextTable
from loopscope.terminal.columns import show
from loopscope.terminal.printable import printable
from loopscope.views.numbers import age, byte_size, counted

if TYPE_CHECKING:
    from loopscope.state.artifacts.collection import Stock
    from loopscope.state.artifacts.store import Stored

ROWS_MAX = 50
"""Things listed one by one; the rest is counted. ``-o json`` has them all."""

EXAMPLES = {
    "gc": ("gc --keep-last 3", "gc --keep-last 3 --yes"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("gc")(gc)


def gc(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only show.")] = False,
    keep_last: Annotated[
        int, typer.Option("--keep-last", min=0, help="Newest artifacts kept for each object.")
    ] = 0,
    grace: GraceOption = "1h",  # type: ignore[assignment]  # read by the parser
    empty_trash: Annotated[
        bool, typer.Option("--empty-trash", help="Remove all of the trash for good.")
    ] = False,
    empty_trash_after: TrashOption = "7d",  # type: ignore[assignment]
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
) -> None:
    """Show what nothing needs any more, with its size; with --yes it goes to the trash."""
    from loopscope.state.artifacts.collection import (
        RetentionPolicy,
        collect,
        forget_missing,
        take_stock,
    )
    from loopscope.state.artifacts.reachability import Reachability

    context.obj.refuse_namespace("gc")
    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    state = context.obj.open_existing() if yes else context.obj.open_to_read()
    policy = RetentionPolicy(keep_last, grace, empty_trash_after)
    reachability = Reachability(state.artifacts, keep_last)
    at = now()
    stock = take_stock(state, reachability, policy, at)
    until = at if empty_trash else at - empty_trash_after
    emptied = [entry for entry in stock.trash if entry.since <= until]
    gone = stock.unneeded
    if yes:
        state.artifacts.empty_trash(until)  # first: what is thrown away now stays a while
        gone = collect(state, reachability, stock.unneeded, at)
        forget_missing(state, reachability)
    if output == "json":
        print(json.dumps(_document(stock, gone, len(emptied), done=yes), indent=2))
    else:
        _print(stock, gone, len(emptied), at, done=yes)


def _print(stock: Stock, gone: list[Stored], emptied: int, at: float, *, done: bool) -> None:
    if gone:
        rows = [[t.kind, _name(t), byte_size(t.bytes), age(at - t.since)] for t in gone[:ROWS_MAX]]
        show(TextTable(["KIND", "NAME", "SIZE", "AGE"], rows))
        if len(gone) > ROWS_MAX:
            print(f"… and {len(gone) - ROWS_MAX} more")
    size = byte_size(sum(thing.bytes for thing in gone))
    verb = "moved to the trash" if done else "would go to the trash"
    print(f"{counted(len(gone), 'thing')} ({size}) {verb}")
    if stock.in_grace:
        size = byte_size(sum(thing.bytes for thing in stock.in_grace))
        are = "is" if len(stock.in_grace) == 1 else "are"
        print(f"{len(stock.in_grace)} more ({size}) {are} unneeded, but within --grace")
    are = "is" if stock.needed == 1 else "are"
    print(f"{counted(stock.needed, 'artifact')} ({byte_size(stock.needed_bytes)}) {are} needed")
    if stock.trash:
        verb = "removed for good" if done else "would be removed for good"
        held = f"the trash {'held' if done else 'holds'} {counted(len(stock.trash), 'thing')}"
        print(f"{held} ({byte_size(stock.trash_bytes)}), {emptied} {verb}")
    if not done and (gone or emptied):
        print("nothing was changed; repeat it with --yes")


class _Thing(TypedDict):
    kind: str
    name: str
    bytes: int


class _Document(TypedDict):
    """What ``gc -o json`` prints."""

    done: bool
    collected: list[_Thing]
    collectedBytes: int
    inGrace: list[_Thing]
    inGraceBytes: int
    needed: int
    neededBytes: int
    trash: int
    trashBytes: int
    trashEmptied: int


def _document(stock: Stock, gone: list[Stored], emptied: int, *, done: bool) -> _Document:
    return {
        "done": done,
        "collected": [_thing(thing) for thing in gone],
        "collectedBytes": sum(thing.bytes for thing in gone),
        "inGrace": [_thing(thing) for thing in stock.in_grace],
        "inGraceBytes": sum(thing.bytes for thing in stock.in_grace),
        "needed": stock.needed,
        "neededBytes": stock.needed_bytes,
        "trash": len(stock.trash),
        "trashBytes": stock.trash_bytes,
        "trashEmptied": emptied,
    }


def _thing(thing: Stored) -> _Thing:
    return {
        "kind": thing.kind,
        "name": "/".join(part for part in (thing.group, thing.name) if part),
        "bytes": thing.bytes,
    }


def _name(thing: Stored) -> str:
    """Return a short name, on one printable line."""
    name = "/".join(part for part in (thing.group, thing.name[:12]) if part)
    return " ".join(printable(name).split())
