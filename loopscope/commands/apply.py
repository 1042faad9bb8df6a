"""``apply`` and ``diff``: what should exist."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from loopscope.commands.options import FileOption, RootOption
from loopscope.context import now, root_of
from state import objects


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("apply")(apply)
    app.command("diff")(diff)


def apply(
    context: typer.Context,
    filename: FileOption,
    root: RootOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only, store nothing.")] = False,
) -> None:
    """Store what a file or folder describes; a controller then makes it true."""
    from controller.applying import apply_all, load_admitted  # late: `get` must stay quick

    loaded = load_admitted(filename, root_of(filename, root))
    if dry_run:
        for item in loaded:
            print(f"{item.manifest.key} is valid (dry run)")
        return
    for applied in apply_all(context.obj.open(), loaded, now=now()):
        print(f"{applied.key} {applied.outcome}")


def diff(context: typer.Context, filename: FileOption, root: RootOption = None) -> None:
    """Show which fields an apply would change. Exit 1 when there are any."""
    from controller.applying import changes, load_admitted

    loaded = load_admitted(filename, root_of(filename, root))
    different = False
    with context.obj.open_existing().database.read() as connection:
        for item in loaded:
            stored = objects.get(connection, item.manifest.key)
            found = changes(stored, item)
            if found:
                different = True
                print(f"{item.manifest.key}{'' if stored else ' (new)'}")
            for change in found:
                print(f"  {change.field}: {_short(change.before)} -> {_short(change.after)}")
    raise typer.Exit(1 if different else 0)


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 8:
        return f"[{len(value)} items]"
    return "(not set)" if value is None else json.dumps(value, ensure_ascii=False)
