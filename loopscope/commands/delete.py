"""``delete``: what should no longer exist. Artifacts stay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from loopscope.commands.options import FilesOrElseOption, RootOption
from loopscope.context import CommandError, Globals, find, now, root_of, split_name
from loopscope.specs.keys import Key
from loopscope.specs.yaml.spec_sources import SpecSource
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("delete")(delete)


def delete(
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND NAME]", help="Which object.")
    ] = None,
    filename: FilesOrElseOption = None,
    root: RootOption = None,
) -> None:
    """Delete objects and what they own; applying them again finds their artifacts."""
    if filename and words:
        raise CommandError("name what to delete: either KIND NAME or -f PATH")
    described = _described(context.obj, filename, root) if filename else None
    lines = []
    with context.obj.open_existing().database.write() as connection:
        keys = described or _named(connection, context.obj.namespace, words or [])
        _refuse_owned(connection, keys)
        for key in keys:
            try:
                removed = objects.remove(connection, key, now=now())
            except KeyError:
                lines.append(f"{key} not found")
            else:
                lines.extend(f"{gone} deleted" for gone in removed)
    for line in lines:  # only now is it true: a refusal takes everything back
        print(line)


def _described(options: Globals, paths: list[Path], root: Path | None) -> list[Key]:
    """Return the objects that files describe; they are read before anything is locked."""
    from loopscope.specs.yaml.loading import load_all  # late: most commands read no YAML

    sources = [SpecSource(path, root_of(path, root)) for path in paths]
    return [item.manifest.key for item in load_all(sources, options.only_namespace)]


def _named(connection: Connection, namespace: str, words: list[str]) -> list[Key]:
    if not words:
        raise CommandError("name what to delete: loopscope delete KIND NAME, or -f FILE")
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"name the {kind.lower()} to delete")
    return [record.key for record in find(connection, kind, namespace, name)]


def _refuse_owned(connection: Connection, keys: Sequence[Key]) -> None:
    """Refuse what its owner would make again, unless that goes as well."""
    for record in objects.get_all(connection, keys):
        if record.owner is not None and record.owner not in keys:
            raise CommandError(
                f"{record.key} belongs to {record.owner} and would come back; "
                f"delete {record.owner}, or edit its spec"
            )
