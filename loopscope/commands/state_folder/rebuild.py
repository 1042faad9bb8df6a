"""``rebuild``: a lost database is made again from spec files and artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopscope.commands.options import RootOption
from loopscope.context import CommandError, now, root_of

if TYPE_CHECKING:
    from loopscope.specs.keys import Key
    from loopscope.specs.yaml.loading import LoadedObject

NOT_RESTORED = (
    "not restored: events, ended jobs with their failures and attempts, earlier specs, generations "
    "(they start at 1), and objects that came from other files; apply those, too"
)

EXAMPLES = {
    "rebuild": ("rebuild specs",),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rebuild")(rebuild)


def rebuild(
    context: typer.Context,
    specs: Annotated[
        list[Path], typer.Argument(help="All YAML files, or folders, that were applied.")
    ],
    root: RootOption = None,
    replace_healthy: Annotated[
        bool,
        typer.Option("--replace-healthy", help="Set the database aside even if it is whole."),
    ] = False,
) -> None:
    """Make a lost or damaged database again from the specs and the artifacts on disk.

    The old database is set aside, never deleted. Then `run` finds nothing left to do.
    """
    from loopscope.controller.maintenance.rebuild import (
        rebuild as make_again,  # late: help must stay quick
    )
    from loopscope.controller.runtime import AnotherController

    context.obj.refuse_namespace("rebuild")
    loaded = _loaded(specs, root)
    path = context.obj.state_path
    try:
        done = make_again(path, loaded, now=now(), healthy_too=replace_healthy)
    except AnotherController as error:
        raise CommandError(f"{error}; stop it before a rebuild", 1) from None
    if done.set_aside is not None:
        print(f"the old database lies at {done.set_aside} now")
    for finding in done.damaged:
        print(f"{finding.subject} is damaged and was set aside: {finding.what}")
    for applied in done.applied:
        print(f"{applied.key} {applied.outcome}")
    print(f"{done.taken_over} artifacts were taken over")
    print(NOT_RESTORED)
    for words in done.older:
        print(f"of older rules, and made again where it is needed: {words}")
    if done.older:
        print("next: `loopscope plan -f` shows what that costs; then `loopscope run`")
    else:
        print("next: `loopscope run` with the same files; it makes only what is missing")


def _loaded(specs: list[Path], root: Path | None) -> list[LoadedObject]:
    """Load all files; an object may stand in one only."""
    from loopscope.controller.plan.applying import load_admitted

    loaded: dict[Key, LoadedObject] = {}
    for path in specs:
        for item in load_admitted(path, root_of(path, root)):
            first = loaded.setdefault(item.manifest.key, item)
            if Path(first.document.file).resolve() != Path(item.document.file).resolve():
                raise CommandError(
                    f"{item.manifest.key} is defined in {first.document.file} and in "
                    f"{item.document.file}; name one of them"
                )
    return list(loaded.values())
