"""``delete``: what should no longer exist. Artifacts stay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from loopscope.commands.object_words import complete_object
from loopscope.commands.options import DryRunOption, FilesOrElseOption, RootOption
from loopscope.commands.selection import Selection, SelectorOption, selection_of
from loopscope.context import CommandError, Globals, now, root_of
from loopscope.controller.apply.deletion import would_come_back, would_remove
from loopscope.specs.keys import Key
from loopscope.specs.yaml.spec_sources import SpecSource
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection

EXAMPLES = {
    "delete": (
        "delete experiment france",
        "delete -f specs/france.yaml",
        "delete experiments -l team=geo --dry-run=client",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("delete")(delete)


def delete(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KIND NAME]", help="Which object.", autocompletion=complete_object),
    ] = None,
    filename: FilesOrElseOption = None,
    root: RootOption = None,
    selector: SelectorOption = None,
    all_: Annotated[
        bool, typer.Option("--all", help="All objects of the kind in the namespace.")
    ] = False,
    dry_run: DryRunOption = "none",
) -> None:
    """Delete objects and what they own; applying them again finds their artifacts."""
    if filename and (words or selector or all_):
        raise CommandError("name what to delete: either KIND NAME or -f PATH")
    described = _described(context.obj, filename, root) if filename else None
    wanted = None if filename else _wanted(context.obj, words or [], selector, all_)
    dry = dry_run != "none"
    state = context.obj.open_to_read() if dry else context.obj.open_existing()
    with state.database.read() if dry else state.database.write() as connection:
        keys = [r.key for r in wanted.records(connection)] if wanted else described or []
        refusal = would_come_back(connection, keys)
        if refusal is not None:
            raise CommandError(refusal)
        lines = _remove(connection, keys, dry=dry)
    if wanted is not None and not keys:
        lines = [wanted.nothing_found]
    for line in lines:  # only now is it true: a refusal takes everything back
        print(line)


def _described(options: Globals, paths: list[Path], root: Path | None) -> list[Key]:
    """Return the objects that files describe; they are read before anything is locked."""
    from loopscope.inputs.datasets import Datasets  # late: most commands read no YAML
    from loopscope.specs.yaml.loading import load_all

    datasets = Datasets().find
    sources = [SpecSource(path, root_of(path, root)) for path in paths]
    return [item.manifest.key for item in load_all(sources, options.only_namespace, datasets)]


def _wanted(given: Globals, words: list[str], selector: str | None, everything: bool) -> Selection:
    """Return what words and options choose. Raises CommandError where that could be too much."""
    if not words:
        raise CommandError("name what to delete: loopscope delete KIND NAME, or -f FILE")
    wanted = selection_of(given, words, selector)
    unnamed = next((one.kind.lower() for one in wanted.asked if one.name is None), None)
    if unnamed is None and (everything or selector is not None):
        raise CommandError("give names, or --selector, or --all")
    if unnamed is not None and everything == (selector is not None):
        raise CommandError(f"name the {unnamed} to delete, or give one of --selector and --all")
    return wanted


def _remove(connection: Connection, keys: Sequence[Key], *, dry: bool) -> list[str]:
    """Delete objects; return what to say of each. What went with its owner is not missed.

    ``dry``: raise and say the same, and delete nothing.
    """
    gone: list[Key] = []
    lines = []
    for key in keys:
        if key in gone:
            continue
        try:
            if dry:
                removed = would_remove(connection, key)
            else:
                removed = objects.remove(connection, key, now=now())
        except KeyError:
            lines.append(f"{key} not found")
        else:
            gone += removed
            lines.extend(f"{one} deleted{' (dry run)' if dry else ''}" for one in removed)
    return lines
