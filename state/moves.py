"""Moves of a state's parts to another place: what names that place is written last.

A move of artifacts is written down before it begins, so who goes on after a crash knows a bucket
that it had taken to be his own.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from loopscope.state import artifact_place
from loopscope.state.artifact_place import KeptPlace, kept_at
from loopscope.state.artifacts.bucket.address import Address, address_of
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db.database import Database, open_database
from loopscope.state.failures import TerminalFailure
from loopscope.state.files import durable_replace, fsync_path
from loopscope.state.folder import (
    DATABASE,
    artifacts_below,
    database_in,
    database_of,
    note_artifacts,
)

MOVE = "artifact-store.moving"
"""The file of a move that is under way: where to, and whether all is there."""
LEFT = "artifact-store.left"
"""The file that names the bucket which artifacts were moved out of, so that they may go back."""


@dataclass(frozen=True)
class Move:
    """A move of artifacts that is under way: into a bucket, or below the folder (``None``)."""

    kept: KeptPlace | None
    is_switching: bool = False
    """Whether everything is there, so that only the names of the place are left to be written."""


def set_file_aside(path: Path) -> str | None:
    """Set aside the file of a folder whose database is on a server; return its place, if any."""
    return database_in(path / DATABASE).set_aside()


def note_artifacts_in(copy: Path, path: Path) -> None:
    """Let a copied database know its artifacts to be where a folder keeps its own."""
    database = Database(database_in(copy))
    try:
        note_artifacts(database, kept_at(path))
    finally:
        database.close()


def begin_move(path: Path, url: str | None) -> Move:
    """Return a move to a place, or the one that was begun. Raises TerminalFailure."""
    begun = _move_at(path)
    wanted = address_of(url) if url is not None else None
    if begun is not None and _is_at(begun.kept, wanted):
        return begun
    if begun is not None and begun.is_switching:
        where = begun.kept.address if begun.kept else "folder:"
        raise TerminalFailure(
            "AnotherArtifactStore",
            f"a move of the artifacts to {where} is about to end; repeat that one first",
        )
    move = Move(_bucket_for(path, wanted) if wanted is not None else None)
    _note_move(path, move)
    return move


def is_there(path: Path, move: Move) -> bool:
    """Whether a folder has its artifacts where a move brings them."""
    return _is_at(kept_at(path), move.kept.address if move.kept else None)


def target_of(path: Path, move: Move) -> ArtifactStore:
    """Return the store that a move fills; a bucket is ours from now on. Raises TerminalFailure."""
    if move.kept is None:
        return artifacts_below(path)
    address = replace(move.kept.address, owner=move.kept.owner)
    kept = artifact_place.claimed(address, {move.kept.owner}, is_new=True)
    return artifact_place.store_at(path, kept)


def switch_artifacts(path: Path, move: Move) -> None:
    """Let folder and database name the new place, where all is; killed anywhere, it is repeated."""
    _note_move(path, replace(move, is_switching=True))
    before = kept_at(path)
    if before is not None and not is_there(path, move):
        _write(path / LEFT, {"url": before.address.written(), "owner": before.owner})
    if move.kept is not None:
        artifact_place.keep(path, move.kept)
    else:
        (path / artifact_place.STORE).unlink(missing_ok=True)
        fsync_path(path)
    database = open_database(database_of(path))
    try:
        note_artifacts(database, move.kept)
    finally:
        database.close()
    end_move(path)


def end_move(path: Path) -> None:
    """Forget a move that has ended."""
    (path / MOVE).unlink(missing_ok=True)


def _bucket_for(path: Path, wanted: Address) -> KeptPlace:
    for known in (kept_at(path), _place_in(path / LEFT)):
        if known is not None and _is_at(known, wanted):
            return known
    return KeptPlace(wanted, wanted.owner or uuid.uuid4().hex)


def _is_at(kept: KeptPlace | None, wanted: Address | None) -> bool:
    return (str(kept.address) if kept else None) == (str(wanted) if wanted else None)


def _move_at(path: Path) -> Move | None:
    kept = _place_in(path / MOVE)
    if not (path / MOVE).exists():
        return None
    said = json.loads((path / MOVE).read_text(encoding="utf-8"))
    return Move(kept, bool(said["isSwitching"]))


def _note_move(path: Path, move: Move) -> None:
    url = move.kept.address.written() if move.kept else None
    owner = move.kept.owner if move.kept else None
    _write(path / MOVE, {"url": url, "owner": owner, "isSwitching": move.is_switching})


def _place_in(file: Path) -> KeptPlace | None:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return KeptPlace(address_of(said["url"]), said["owner"]) if said["url"] else None


def _write(file: Path, said: Mapping[str, object]) -> None:
    written = file.with_name(f"{file.name}.new")
    written.write_text(json.dumps(said) + "\n")
    durable_replace(written, file)
