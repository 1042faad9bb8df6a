"""``migrate-state``: the database or the artifacts of a state to another place, and back."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopscope.context import CommandError, now
from loopscope.state.artifact_place import kept_at
from loopscope.state.folder import has_database, server_of
from loopscope.terminal.printable import printable
from loopscope.views.numbers import byte_size, counted

if TYPE_CHECKING:
    from loopscope.controller.maintenance.moving import Moved
    from loopscope.state.records import ArtifactRecord

FILE, FOLDER = "sqlite:", "folder:"
PLACES = "postgresql+psycopg://user@host/database, sqlite:, s3://bucket/prefix or folder:"
SAY_SECONDS = 5.0
"""How often a long move says how far it is."""

EXAMPLES = {
    "migrate-state": (
        "migrate-state --from sqlite: --to postgresql+psycopg://app@db.example/loopscope",
        "migrate-state --to s3://bucket/prefix",
        "migrate-state --to folder:",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("migrate-state")(migrate_state)


def migrate_state(
    context: typer.Context,
    to: Annotated[
        str,
        typer.Option("--to", metavar="PLACE", help=f"Where to: {PLACES}."),
    ],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="PLACE", help="Refuse unless it is there now."),
    ] = None,
) -> None:
    """Move the database to a server or back to a file, or artifacts to a bucket or back.

    No controller may run. Nothing is deleted; a move that was cut off is repeated and goes on.
    """
    from loopscope.controller.maintenance.moving import move_artifacts, move_database
    from loopscope.controller.runtime import AnotherController

    context.obj.refuse_namespace("migrate-state")
    path = context.obj.state_path.resolve()
    if not has_database(path):
        raise CommandError(f"no state folder at {path}; name one with --state")
    _refuse_elsewhere(path, source)
    try:
        if to == FILE or to.startswith("postgresql"):
            url = None if to == FILE else to
            done = move_database(path, url, now=now(), lineage=str(uuid.uuid4()))
        elif to == FOLDER or to.startswith("s3://"):
            done = move_artifacts(path, None if to == FOLDER else to, _Progress())
        else:
            raise CommandError(f"--to {to}: expected {PLACES}")
    except AnotherController as error:
        raise CommandError(f"{error}; stop it before a move", 1) from None
    _tell(done)


def _refuse_elsewhere(path: Path, source: str | None) -> None:
    if source is None:
        return
    kind, _, named = source.partition(":")
    if kind == "sqlite" and named and Path(named).resolve() not in (path, path / "state.db"):
        raise CommandError(f"--from {source} is not the state folder {path}; name it with --state")
    kept = kept_at(path)
    there = {
        server_of(path) or FILE,
        str(kept.address) if kept else FOLDER,
    }
    wanted = FILE if kind == "sqlite" else source.partition("?")[0] if kind == "s3" else source
    if wanted not in there:
        raise CommandError(f"--from {source}: nothing of this state is there")


class _Progress:
    """Says now and then how far a long move is, on standard error."""

    def __init__(self) -> None:
        self._count, self._bytes, self._said_at = 0, 0, now()

    def __call__(self, record: ArtifactRecord) -> None:
        self._count, self._bytes = self._count + 1, self._bytes + record.bytes
        if now() >= self._said_at + SAY_SECONDS:
            self._said_at = now()
            print(f"{self._count} artifacts, {byte_size(self._bytes)}", file=sys.stderr)


def _tell(done: Moved) -> None:
    if not done.is_new:
        print(printable(f"nothing to do: it is at {done.target}"))
    elif done.carried is None:
        print(printable(f"{done.source} -> {done.target}: {counted(done.objects, 'object')}, "
                        "every row compared"))  # fmt: skip
    else:
        new = f"{counted(done.carried.artifacts, 'artifact')} of {byte_size(done.carried.bytes)}"
        print(printable(f"{done.source} -> {done.target}: {new} copied, {done.carried.standing} "
                        f"were there; {done.whole} found whole"))  # fmt: skip
    if done.left_at is not None:
        print(printable(f"what was moved still lies at {done.left_at}; remove it when you like"))
