"""``snapshot`` and ``restore``: the recorded state to and from one file."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated

import typer

from loopscope.context import CommandError, now
from loopscope.terminal.printable import printable
from loopscope.views.numbers import byte_size, counted, iso

EXAMPLES = {
    "snapshot": ("snapshot before-the-weekend.snapshot",),
    "restore": ("restore before-the-weekend.snapshot",),
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("snapshot")(snapshot)
    app.command("restore")(restore)


def snapshot(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The file to write; it may lie on any file system.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is newer, or of another state.")
    ] = False,
) -> None:
    """Save the recorded state as one file, also while a controller runs. Artifacts stay."""
    from loopscope.controller.maintenance.snapshot import save  # late: help must stay quick

    context.obj.refuse_namespace("snapshot")
    if not file.absolute().parent.is_dir():
        raise CommandError(f"there is no folder {file.absolute().parent}")
    state = context.obj.open_existing()
    done = save(state, file.absolute(), now=now(), lineage=str(uuid.uuid4()), force=force)
    print(
        printable(
            f"{file}: {counted(done.objects, 'object')}, version {done.version}, "
            f"{byte_size(done.bytes)}, sha256 {done.sha256[:12]}"
        )
    )


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="What `loopscope snapshot` wrote.")],
    force: Annotated[
        bool, typer.Option("--force", help="Set aside a state that is newer, or another one.")
    ] = False,
) -> None:
    """Let the state folder have the state of a snapshot. What was there is set aside."""
    from loopscope.controller.maintenance.snapshot import restore as put_back
    from loopscope.controller.runtime import AnotherController

    context.obj.refuse_namespace("restore")
    try:
        done = put_back(context.obj.state_path.resolve(), file.absolute(), force=force)
    except AnotherController as error:
        raise CommandError(f"{error}; stop it before a restore", 1) from None
    if done.set_aside is not None:
        print(printable(f"the database that was there lies at {done.set_aside} now"))
    at = f"{counted(done.snapshot.objects, 'object')}, version {done.snapshot.version}"
    if done.is_new:
        print(printable(f"restored {at}, saved at {iso(done.snapshot.saved_at)}"))
    else:
        print(printable(f"nothing to do: {at} is what is there"))
