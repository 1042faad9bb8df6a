"""``backup`` and ``restore``: a whole state to a folder, or its records to a file, and back."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopscope.context import EXIT_STALLED, CommandError, now
from loopscope.terminal.printable import printable
from loopscope.views.numbers import byte_size, counted, iso

if TYPE_CHECKING:
    from loopscope.controller.maintenance.snapshot import Restored, Snapshot
    from loopscope.state.artifacts.carrying import Carried

LOST_MAX = 20
"""Lost artifacts listed one by one; the rest is counted."""

EXAMPLES = {
    "backup": ("backup /mnt/backup/loopscope", "backup --records-only before.snapshot"),
    "restore": ("restore /mnt/backup/loopscope", "restore before.snapshot"),
    "snapshot": ("snapshot before-the-weekend.snapshot",),
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("backup")(backup)
    app.command("restore")(restore)
    app.command("snapshot", hidden=True)(snapshot)


def backup(
    context: typer.Context,
    target: Annotated[Path, typer.Argument(help="A folder of its own, best on another disk.")],
    records_only: Annotated[
        bool,
        typer.Option("--records-only", help="One file, with the database and no artifacts."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is newer, or of another state.")
    ] = False,
) -> None:
    """Copy the whole state to a folder, also while a controller runs. Again: only what is new.

    What is copied is the state of one moment: database, artifacts, finished shards, ratings,
    registrations and limits.
    """
    from loopscope.controller.maintenance.backup import back_up
    from loopscope.state.folder import is_backup

    context.obj.refuse_namespace("backup")
    path = target.absolute()
    if not path.parent.is_dir():
        raise CommandError(f"there is no folder {path.parent}")
    if records_only:
        if path.is_dir():
            raise CommandError(f"{target} is a folder; --records-only writes one file")
        _save(context, target, force=force)
        return
    if path.exists() and not path.is_dir():
        raise CommandError(f"{target} is a file; name a folder, or --records-only")
    is_first = not is_backup(path)
    done = back_up(
        context.obj.open_existing(), path, now=now(), lineage=str(uuid.uuid4()), force=force
    )
    began = "" if is_first else f" ({done.carried.standing} were there)"
    print(printable(f"{target}: {_counted(done.snapshot)}"))
    papers = counted(
        done.files, "file of ratings and registrations", "files of ratings and registrations"
    )
    print(f"copied {_words(done.carried)}{began}; {papers}")
    _tell_lost(done.carried, "run `loopscope fsck`, mend, and back up again")


def restore(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="What `loopscope backup` wrote.")],
    force: Annotated[
        bool, typer.Option("--force", help="Set aside a state that is newer, or another one.")
    ] = False,
) -> None:
    """Let the state folder have the state of a backup. What was there is set aside."""
    from loopscope.controller.maintenance.backup import restore_backup
    from loopscope.controller.maintenance.snapshot import restore as put_back
    from loopscope.controller.runtime import AnotherController
    from loopscope.state.folder import is_backup

    context.obj.refuse_namespace("restore")
    path, state = source.absolute(), context.obj.state_path.resolve()
    carried: Carried | None = None
    try:
        if is_backup(path):
            done, carried = restore_backup(state, path, force=force)
        else:
            done = put_back(state, path, force=force)
    except AnotherController as error:
        raise CommandError(f"{error}; stop it before a restore", 1) from None
    _tell(done)
    if carried is not None:
        print(f"brought {_words(carried)}; {carried.standing} were there")
        _tell_lost(carried, "they are made again when a controller runs")


def snapshot(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The file to write; it may lie on any file system.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is newer, or of another state.")
    ] = False,
) -> None:
    """Save the recorded state as one file: the former name of ``backup --records-only``."""
    context.obj.refuse_namespace("snapshot")
    if not file.absolute().parent.is_dir():
        raise CommandError(f"there is no folder {file.absolute().parent}")
    _save(context, file, force=force)


def _save(context: typer.Context, file: Path, *, force: bool) -> None:
    from loopscope.controller.maintenance.snapshot import save  # late: help must stay quick

    state = context.obj.open_existing()
    done = save(state, file.absolute(), now=now(), lineage=str(uuid.uuid4()), force=force)
    print(printable(f"{file}: {_counted(done)}"))


def _counted(done: Snapshot) -> str:
    return (
        f"{counted(done.objects, 'object')}, version {done.version}, "
        f"{byte_size(done.bytes)}, sha256 {done.sha256[:12]}"
    )


def _tell(done: Restored) -> None:
    if done.set_aside is not None:
        print(printable(f"the database that was there lies at {done.set_aside} now"))
    at = f"{counted(done.snapshot.objects, 'object')}, version {done.snapshot.version}"
    if done.is_new:
        print(printable(f"restored {at}, saved at {iso(done.snapshot.saved_at)}"))
    else:
        print(printable(f"nothing to do: {at} is what is there"))


def _words(carried: Carried) -> str:
    shards = f", {counted(carried.shards, 'finished shard')}" if carried.shards else ""
    return f"{counted(carried.artifacts, 'artifact')} of {byte_size(carried.bytes)}{shards}"


def _tell_lost(carried: Carried, remedy: str) -> None:
    if not carried.lost:
        return
    for why in carried.lost[:LOST_MAX]:
        print(printable(f"left behind: {why}"))
    more = len(carried.lost) - LOST_MAX
    beside = f" ({more} more)" if more > 0 else ""
    print(f"{counted(len(carried.lost), 'artifact')} could not be copied{beside}: {remedy}")
    raise typer.Exit(EXIT_STALLED)
