"""``delete``: what should no longer exist. Artifacts stay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loopscope.commands.options import RootOption
from loopscope.context import CommandError, find, now, root_of, split_name
from loopscope.specs.keys import Key
from loopscope.state import objects


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("delete")(delete)


def delete(
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND NAME]", help="Which object.")
    ] = None,
    filename: Annotated[
        Path | None, typer.Option("--filename", "-f", help="Delete what this file describes.")
    ] = None,
    root: RootOption = None,
) -> None:
    """Delete objects and what they own; applying them again finds their artifacts."""
    said = []
    state = context.obj.open_existing()
    described = _described(filename, root) if filename is not None else None
    with state.database.write() as connection:
        named = described is None
        keys = _named(connection, context.obj.namespace, words or []) if named else described
        for key in keys or ():
            try:
                removed = objects.remove(connection, key, now=now())
            except KeyError:
                said.append(f"{key} not found")
            else:
                said.extend(f"{gone} deleted" for gone in removed)
    for line in said:  # only now is it true: a refusal takes everything back
        print(line)


def _described(filename: Path, root: Path | None) -> list[Key]:
    """Read the keys from a file: before the lock is taken, for a pipe may be slow."""
    from loopscope.specs.loading import load_path  # late: most commands read no YAML

    return [item.manifest.key for item in load_path(filename, root_of(filename, root))]


def _named(connection: object, namespace: str, words: list[str]) -> list[Key]:
    if not words:
        raise CommandError("name what to delete: loopscope delete KIND NAME, or -f FILE")
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"name the {kind.lower()} to delete")
    found = find(connection, kind, namespace, name)
    owned = next((record for record in found if record.owner is not None), None)
    if owned is not None:
        raise CommandError(
            f"{owned.key} belongs to {owned.owner} and would come back; "
            f"delete {owned.owner}, or edit its spec"
        )
    return [record.key for record in found]
