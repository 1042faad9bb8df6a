"""Snapshots: the database of a state folder as one file on any file system, and back.

The file is a line of JSON, which says what follows and has its hash, then a whole database. It is
taken while others work, and replaced by rename, so that who reads it finds the old or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from loopscope.controller.runtime import leadership
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.state.db import applied, objects, pages
from loopscope.state.db.connection import Connection
from loopscope.state.db.database import HEAD_REVISION, Database, schema_revision
from loopscope.state.failures import Failure, TerminalFailure
from loopscope.state.files import durable_replace, file_sha256
from loopscope.state.folder import (
    DATABASE,
    StateFolder,
    database_of,
    named_artifacts,
    open_state,
    refuse_backup,
    refuse_other_artifacts,
)
from loopscope.state.read_only import look_at

FORMAT = 1
HEADER_BYTES_MAX = 4096
BLOCK_BYTES = 2**20
LINEAGE = "lineage"
"""The mark that a database shares with all that were restored from its snapshots."""


@dataclass(frozen=True)
class Snapshot:
    """What the first line of a snapshot says."""

    lineage: str
    version: int
    """The newest resourceVersion in it."""
    objects: int
    schema: str
    saved_at: float
    """Unix seconds."""
    bytes: int
    sha256: str


_TYPES = {
    "lineage": str, "version": int, "objects": int, "schema": str, "saved_at": float, "bytes": int,
    "sha256": str,
}  # fmt: skip


@dataclass(frozen=True)
class Restored:
    """What a restore did."""

    snapshot: Snapshot
    is_new: bool
    """False if the state folder was as new already, and stayed as it was."""
    set_aside: str | None = None
    """Where the database that was there lies now."""


def save(state: StateFolder, target: Path, *, now: float, lineage: str, force: bool) -> Snapshot:
    """Write the database as it is now to ``target``, also while a controller runs.

    ``lineage`` names a database that no snapshot was taken of before. Raises TerminalFailure when
    ``target`` holds anything but an older snapshot of this state, unless ``force``.
    """
    with taken(state, now=now, lineage=lineage) as (snapshot, copy):
        if not force:
            refuse_to_replace(target, snapshot, copy)
        write(target, snapshot, copy)
    return snapshot


@contextmanager
def taken(state: StateFolder, *, now: float, lineage: str) -> Iterator[tuple[Snapshot, Path]]:
    """Copy the database of this moment into a file that lasts as long as the context."""
    give_lineage(state, lineage)
    with tempfile.TemporaryDirectory(prefix=".snapshot-", dir=state.path) as folder:
        copy = Path(folder) / DATABASE
        state.database.dialect.copy_to(copy)
        yield described(copy, now), copy


def give_lineage(state: StateFolder, lineage: str) -> None:
    """Let a database have the name that it shares with its copies, unless it has one."""
    with state.database.read() as connection:
        if applied.mark(connection, LINEAGE) is not None:
            return
    with state.database.write() as connection:
        if applied.mark(connection, LINEAGE) is None:  # still, now that no other process writes
            applied.set_mark(connection, LINEAGE, lineage)


def restore(
    path: Path, source: Path, *, force: bool, bring: Callable[[Path], None] | None = None
) -> Restored:
    """Let the state folder at ``path`` have the database of a snapshot; set aside what was there.

    Nothing is changed before the whole snapshot was read and examined. ``bring``, given the copy
    of the database, brings what belongs to it before that is put into its place. Raises
    TerminalFailure when it is damaged, or when the folder holds another or a newer state, unless
    ``force``; and AnotherController while one works there.
    """
    refuse_backup(path)
    _said_by(source)  # before a folder is made for what is no snapshot
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    database_of(path).check_place()
    with tempfile.TemporaryDirectory(prefix=".snapshot-", dir=path) as folder:
        copy = Path(folder) / DATABASE
        snapshot = _extracted(source, copy)
        if bring is None:
            _refuse_other_artifacts(path, copy, source)
        with leadership(look_at(path)):
            there = None if force else _standing(path)
            if there is not None and there != (snapshot.lineage, snapshot.version):
                _refuse_to_lose(path, there, snapshot)
            if there == (snapshot.lineage, snapshot.version):
                if _content(path) != _content(copy.parent):
                    _refuse_to_lose(path, there, snapshot)
                if bring is not None:
                    bring(copy)
                return Restored(snapshot, is_new=False)
            if bring is not None:
                bring(copy)
            dialect = database_of(path)
            aside = dialect.set_aside()
            dialect.restore_from(copy)
            open_state(path).database.close()
    return Restored(snapshot, is_new=True, set_aside=aside)


def _refuse_other_artifacts(path: Path, copy: Path, source: Path) -> None:
    database = look_at(copy.parent).database
    try:
        refuse_other_artifacts(path, named_artifacts(database), str(source))
    finally:
        database.close()


def described(copy: Path, now: float) -> Snapshot:
    """Examine a copy and return what there is to say of it. Raises TerminalFailure."""
    database = look_at(copy.parent).database
    with database.read() as connection:
        complaints = database.dialect.complaints(connection)
        if complaints:
            raise TerminalFailure(
                "DatabaseDamaged", f"{complaints[0]}; `loopscope fsck` says what to do"
            )
        lineage, version = _name_of(connection)
        count, schema = len(objects.all_keys(connection)), schema_revision(connection)
    database.close()
    size = copy.stat().st_size
    return Snapshot(lineage, version, count, schema or "", now, size, file_sha256(copy))


def _name_of(connection: Connection) -> tuple[str, int]:
    return applied.mark(connection, LINEAGE) or "", objects.resource_version(connection)


def _content(folder: Path) -> str:
    database = look_at(folder).database
    try:
        return content_of(database)
    finally:
        database.close()


def content_of(database: Database) -> str:
    """Return a digest of the objects of a database.

    Two states that grew out of one snapshot may reach the same version by other changes.
    """
    found = hashlib.sha256()
    with database.read() as connection:
        for kind in SPEC_BY_KIND:
            after: tuple[str, str] | None = None
            while rows := pages.texts(connection, kind, None, after=after, rows_max=500):
                found.update(json.dumps(rows).encode())
                after = (rows[-1].key.namespace, rows[-1].key.name)
    return found.hexdigest()


def refuse_to_replace(target: Path, snapshot: Snapshot, copy: Path) -> None:
    """Raise TerminalFailure when a file holds anything but an older snapshot of the same state."""
    if not target.exists():
        return
    with target.open("rb") as stream:
        there = _header(stream, target)
    if there.lineage != snapshot.lineage:
        what = "is a snapshot of another state"
    elif there.version > snapshot.version:
        what = f"is newer (version {there.version}; here {snapshot.version})"
    elif there.version == snapshot.version and _differs(target, copy):
        what = f"went another way (both have version {there.version}, with other objects)"
    else:
        return
    raise TerminalFailure(
        "SnapshotNewer",
        f"{target} {what}; name another file, `loopscope restore` it first, or replace it with "
        "--force",
    )


def _differs(target: Path, copy: Path) -> bool:
    with tempfile.TemporaryDirectory(prefix=".there-", dir=copy.parent) as folder:
        _extracted(target, Path(folder) / DATABASE)
        return _content(Path(folder)) != _content(copy.parent)


def write(target: Path, snapshot: Snapshot, copy: Path) -> None:
    """Put a copy with its first line into place, durably. Raises TerminalFailure."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    head = json.dumps({"loopscopeSnapshot": FORMAT, **asdict(snapshot)}).encode() + b"\n"
    try:
        temporary.touch(mode=0o600, exist_ok=False)
        with temporary.open("wb") as written, copy.open("rb") as read:
            written.write(head)
            while block := read.read(BLOCK_BYTES):
                written.write(block)
        durable_replace(temporary, target)
    except OSError as error:
        raise TerminalFailure(
            "SnapshotNotWritable",
            f"{target} cannot be written ({error.strerror}); free some space, or name another file",
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _header(stream: BinaryIO, path: Path) -> Snapshot:
    line = stream.readline(HEADER_BYTES_MAX)
    try:
        said: dict[str, Any] = json.loads(line)
        if said.pop("loopscopeSnapshot") != FORMAT:
            raise ValueError
        found = Snapshot(**said)
        if not all(type(getattr(found, name)) is kind for name, kind in _TYPES.items()):
            raise ValueError
        return found
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise TerminalFailure(
            "SnapshotDamaged",
            f"{path} is no snapshot of this version; name a file that `loopscope snapshot` wrote",
        ) from None


def _said_by(source: Path) -> Snapshot:
    """Return what the first line of a snapshot says. Raises TerminalFailure."""
    try:
        with source.open("rb") as stream:
            return _header(stream, source)
    except OSError as error:
        raise _unreadable(source, error) from None


def _unreadable(source: Path, error: OSError) -> TerminalFailure:
    text = f"{source} cannot be read ({error.strerror}); name what `loopscope backup` wrote"
    return TerminalFailure("SnapshotDamaged", text)


def _extracted(source: Path, copy: Path) -> Snapshot:
    """Write the database of a snapshot to ``copy``, its hash checked. Raises TerminalFailure."""
    found, size = hashlib.sha256(), 0
    try:
        with source.open("rb") as stream, copy.open("xb") as written:
            snapshot = _header(stream, source)
            while block := stream.read(BLOCK_BYTES):
                found.update(block)
                size += len(block)
                written.write(block)
    except OSError as error:
        raise _unreadable(source, error) from None
    if (size, found.hexdigest()) != (snapshot.bytes, snapshot.sha256):
        raise TerminalFailure(
            "SnapshotDamaged",
            f"{source} is not what was saved: {size} of {snapshot.bytes} bytes, sha256 "
            f"{found.hexdigest()[:12]}…, expected {snapshot.sha256[:12]}…; use another copy",
        )
    if snapshot.schema > HEAD_REVISION:
        raise TerminalFailure(
            "NewerDatabase",
            f"{source} has schema {snapshot.schema}, this Loopscope knows {HEAD_REVISION}; upgrade",
        )
    if described(copy, snapshot.saved_at) != snapshot:
        raise TerminalFailure(
            "SnapshotDamaged", f"{source} holds another state than it says; use another copy"
        )
    return snapshot


def _standing(path: Path) -> tuple[str, int] | None:
    """Return lineage and version of the state that would be replaced, None if it holds nothing."""
    if not database_of(path).size_bytes():
        return None
    database = look_at(path).database
    try:
        return standing_of(database)
    finally:
        database.close()


def standing_of(database: Database) -> tuple[str, int] | None:
    """Return lineage and version of what a database holds, None if it has no object."""
    try:
        with database.read() as connection:
            return _name_of(connection) if objects.all_keys(connection) else None
    except Failure:
        return ("", 0)  # damaged or of another version: not ours to replace unasked


def _refuse_to_lose(path: Path, there: tuple[str, int], snapshot: Snapshot) -> None:
    lineage, version = there
    if lineage == snapshot.lineage and version < snapshot.version:
        return
    what = f"a newer state (version {version}; the snapshot has {snapshot.version})"
    if lineage != snapshot.lineage:
        what = "another state"
    elif version == snapshot.version:
        what = f"a state that went another way (both have version {version}, with other objects)"
    raise TerminalFailure(
        "StateNewer",
        f"{path} holds {what}; restore into another folder (--state), or set it aside with --force",
    )
