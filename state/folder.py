"""A state folder: the database and the artifacts, opened together.

The database is a file of the folder, or lies on a server that the folder's file ``database`` names;
artifacts lie below the folder, or in a bucket that its file ``artifact-store`` names.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from loopscope.state import artifact_place
from loopscope.state.artifact_place import COPIES
from loopscope.state.artifacts.bucket.address import address_of as artifact_address_of
from loopscope.state.artifacts.folder_store import FolderStore
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.clock_reading import boot_id
from loopscope.state.db import applied
from loopscope.state.db.database import Database, open_database
from loopscope.state.db.dialect.contract import Dialect
from loopscope.state.db.dialect.sqlite.file import LEADER_LOCK, SqliteFile
from loopscope.state.db.rows import RowsInSqlite
from loopscope.state.failures import TerminalFailure
from loopscope.state.files import durable_replace, free_bytes, fsync_path

DATABASE = "state.db"
SERVER = "database"
"""The file that holds the URL of a database elsewhere."""
URL_CHARACTERS_MAX = 4_096
ARTIFACTS = "artifacts"
BACKUP = "loopscope-backup"
"""The file by which a folder is known to hold a backup, whole or begun."""
ARTIFACT_STORE = "artifact-store"
"""The mark of a database whose artifacts lie in a bucket: how it is named."""


@dataclass(frozen=True)
class StateFolder:
    """A database and artifacts that belong to it, private to its user."""

    path: Path
    database: Database
    artifacts: ArtifactStore

    @property
    def leader_lock(self) -> Path:
        """The file that the one controller of this folder holds locked."""
        return self.path / LEADER_LOCK

    @property
    def ratings(self) -> Path:
        """Where ratings of generated texts are kept."""
        return self.path / "ratings"

    @property
    def register(self) -> Path:
        """Where registrations are kept."""
        return self.path / "register"

    @property
    def logs(self) -> Path:
        """Where controllers and workers write their logs."""
        return self.path / "logs"


def open_state(path: Path) -> StateFolder:
    """Open a state folder, creating and migrating it as needed."""
    path = path.resolve()
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise TerminalFailure(
            "StateNotWritable",
            f"{path} cannot be used as state folder ({error.strerror}); name a folder with --state",
        ) from None
    refuse_other_user(path)
    refuse_backup(path)
    database = open_database(database_of(path))  # first: it may refuse the file system
    _make_private(path)
    _note_artifacts(path, database)
    return StateFolder(path, database, artifacts_of(path))


def is_backup(path: Path) -> bool:
    """Whether a path is a folder that a backup wrote to."""
    return (path / BACKUP).is_file()


def refuse_backup(path: Path) -> None:
    """Raise TerminalFailure for a backup: the next one would remove what is made in its folder."""
    if is_backup(path):
        raise TerminalFailure(
            "StateNotWritable",
            f"{path} is a backup, and what is made in it would not outlive the next one; bring it "
            f"to a folder of its own: `loopscope --state FOLDER restore {path}`",
        )


def owner_of(path: Path) -> int | None:
    """Return the uid of the system user whose state a folder holds, None where it holds none.

    Raises OSError where one may not look.
    """
    for name in (DATABASE, SERVER):
        with contextlib.suppress(FileNotFoundError):
            return (path / name).stat().st_uid
    return None


def refuse_other_user(path: Path) -> None:
    """Raise TerminalFailure when a state belongs to another system user, whatever this one may do.

    What a second user wrote (root above all) the first could not read, change or collect.
    """
    try:
        owner = owner_of(path)
    except PermissionError:
        raise TerminalFailure(
            "StateOfAnotherUser",
            f"{path} is private to {_name_of_user(path.stat().st_uid)}; ask for a report or a "
            "bundle, or work in a folder of your own with --state",
        ) from None
    if owner is not None and owner != os.geteuid():
        name = _name_of_user(owner)
        raise TerminalFailure(
            "StateOfAnotherUser",
            f"{path} is the state of {name}, and this process runs as "
            f"{_name_of_user(os.geteuid())}; run it as {name} (in a container: --user {owner}), or "
            "work in a folder of your own with --state. Several users work on one state through "
            "`loopscope serve --write`, as the user whose state it is",
        )


def _name_of_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def database_of(path: Path) -> Dialect:
    """Return the database of a state folder, which may not exist yet. Raises TerminalFailure."""
    return database_at(path, server_of(path))


def _on_a_server(path: Path, url: str) -> Dialect:
    try:
        from loopscope.state.db.dialect.postgresql.address import address_of
        from loopscope.state.db.dialect.postgresql.server import PostgresSchema
    except ModuleNotFoundError as missing:
        raise TerminalFailure(
            "DriverMissing",
            f"the database of {path} lies on a server, and {missing.name} is not installed: "
            "pip install 'loopscope[postgresql]'",
        ) from None
    return PostgresSchema(address_of(url), path, RowsInSqlite())


def server_of(path: Path) -> str | None:
    """Return the URL of a folder's database on a server; None where it is a file of the folder.

    Raises TerminalFailure where it cannot be read: what it names is not taken for no database.
    """
    try:
        with (path / SERVER).open(encoding="utf-8") as file:
            return file.read(URL_CHARACTERS_MAX).strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise TerminalFailure(
            "InvalidDatabase",
            f"{path / SERVER} cannot be read ({why}); it names the server that holds this state: "
            "write its URL there again",
        ) from None


def keep_database_at(path: Path, url: str) -> None:
    """Let a state folder have its database on a server from now on, once the server let us in.

    Raises Failure where the folder has another one, and where the URL leads nowhere; then nothing
    was kept.
    """
    standing = server_of(path)
    if standing == url:
        return
    if standing is not None or (path / DATABASE).exists():
        there = f"has its database at {path / SERVER if standing else path / DATABASE}"
        raise TerminalFailure(
            "AnotherDatabase",
            f"{path} {there}; work in another folder, or move it: "
            "`loopscope migrate-state --to URL`",
        )
    _on_a_server(path, url).size_bytes()
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    name_database(path, url)


def database_at(path: Path, url: str | None) -> Dialect:
    """Return the database that a folder would have on a server, or (``None``) as its file."""
    return SqliteFile(path / DATABASE) if url is None else _on_a_server(path, url)


def database_in(file: Path) -> Dialect:
    """Return the database that one file holds: a copy of it, or that of a folder on a server."""
    return SqliteFile(file)


def name_database(path: Path, url: str | None) -> None:
    """Let a folder have its database on a server from now on, or (``None``) in its file."""
    if url is None:
        (path / SERVER).unlink(missing_ok=True)
        fsync_path(path)
        return
    written = path / f"{SERVER}.{os.getpid()}.new"  # others may do the same beside us
    written.touch(mode=0o600)  # it may hold a password
    written.write_text(f"{url}\n")
    durable_replace(written, path / SERVER)


def free_to_write(path: Path) -> int:
    """Return how many bytes can still be written where a state lies; of several disks the fullest.

    Artifacts, or the copies of those in a bucket, may lie on a disk of their own.
    """
    places = (path, path / ARTIFACTS, path / COPIES)
    return min(free_bytes(place) for place in places if place.exists())


@dataclass(frozen=True)
class Whereabouts:
    """Where a state lies, in words that mean the same on another machine."""

    folder: Path
    boot: str
    """Of the machine that the folder was named on."""
    database: str | None
    """The URL of its server; None for a file of the folder."""
    artifacts: str | None
    """The bucket, as ``KeptPlace.named``; None for a folder."""

    @property
    def on_one_disk(self) -> bool:
        """Whether something of it can only be reached where the folder is."""
        return self.database is None or self.artifacts is None


def whereabouts(path: Path) -> Whereabouts:
    """Return where the state of a folder lies. Raises TerminalFailure where a file is no help."""
    kept = artifact_place.kept_at(path)
    return Whereabouts(path.resolve(), boot_id(), server_of(path), kept.named() if kept else None)


def brought_here(state: Whereabouts, folders: Path) -> Path:
    """Return a folder of this machine for a state: the very one, or one of ours in ``folders``.

    Ours names the same server and bucket, so what is kept in it are copies. Raises TerminalFailure
    for a state that lies on the disk of another machine.
    """
    kept = artifact_place.kept_at(state.folder)
    there = server_of(state.folder), kept.named() if kept else None
    is_it = state.boot == boot_id() or state.database is not None
    if is_it and there == (state.database, state.artifacts) and has_database(state.folder):
        return state.folder
    if state.database is None or state.artifacts is None:
        raise TerminalFailure(
            "StateOnAnotherMachine",
            f"{state.folder} is not on this machine, and its database or its artifacts are files "
            "of it; a state for several machines has a server and a bucket (docs/scale-out.md)",
        )
    name = hashlib.sha256(f"{state.database} {state.artifacts}".encode()).hexdigest()[:16]
    bucket = artifact_address_of(state.artifacts)
    artifact_place.keep(folders / name, artifact_place.KeptPlace(bucket, str(bucket.owner)))
    keep_database_at(folders / name, state.database)
    return folders / name


def has_database(path: Path) -> bool:
    """Whether a state folder has a database, of whatever condition."""
    return database_of(path).size_bytes() is not None


def artifacts_below(path: Path) -> ArtifactStore:
    """Return the store that a folder has below itself, whatever place it names."""
    return FolderStore(path / ARTIFACTS)


def artifacts_of(path: Path) -> ArtifactStore:
    """Return the artifact store of a state folder; the one place that chooses it."""
    kept = artifact_place.kept_at(path)
    if kept is None:
        return artifacts_below(path)
    return artifact_place.store_at(path, kept)


def keep_artifacts_at(path: Path, url: str) -> None:
    """Let a state folder keep its artifacts in a bucket from now on, once that let us in.

    Raises Failure where it has artifacts elsewhere, where the bucket is another state's and where
    the URL leads nowhere, and OSError; then nothing was kept.
    """
    address = artifact_address_of(url)
    standing = artifact_place.kept_at(path)
    if standing is not None and standing.address.written() == address.written():
        return
    if standing is None and any(artifacts_below(path).contents()):
        raise TerminalFailure(
            "AnotherArtifactStore",
            f"{path} has artifacts in {path / ARTIFACTS}; take them along: `loopscope "
            f"migrate-state --to {address}`, or work in another folder",
        )
    named = _named_before(path)
    marked = artifact_address_of(named).owner if named else None
    ours = {address.owner, standing.owner if standing else None, marked}
    is_new = standing is None and marked is None
    artifact_place.keep(path, artifact_place.claimed(address, ours, is_new=is_new))
    open_state(path).database.close()  # the database takes note of it


def note_artifacts(database: Database, kept: artifact_place.KeptPlace | None) -> None:
    """Let a database know its artifacts to be in a bucket, or below the folder."""
    with database.write() as connection:
        if kept is None:
            applied.drop_mark(connection, ARTIFACT_STORE)
        else:
            applied.set_mark(connection, ARTIFACT_STORE, kept.named())


def named_artifacts(database: Database) -> str | None:
    """Return how the bucket is named that a database knows its artifacts to be in."""
    with database.read() as connection:
        return applied.mark(connection, ARTIFACT_STORE)


def refuse_other_artifacts(path: Path, named: str | None, what: str) -> None:
    """Raise TerminalFailure when a database's artifacts lie elsewhere than those of a folder."""
    kept = artifact_place.kept_at(path)
    if named is None and kept is not None:
        raise TerminalFailure(
            "ArtifactsElsewhere",
            f"the artifacts of {what} lie in a folder, and {path} has a bucket; work in another "
            "folder",
        )
    if named is not None and (kept is None or kept.owner != artifact_address_of(named).owner):
        raise TerminalFailure(
            "ArtifactsElsewhere",
            f"the artifacts of {what} lie in a bucket that {path} does not have; say so once: "
            f"loopscope --artifacts '{named}' …",
        )


def _named_before(path: Path) -> str | None:
    if not has_database(path):
        return None
    database = open_database(database_of(path))
    try:
        return named_artifacts(database)
    finally:
        database.close()


def _note_artifacts(path: Path, database: Database) -> None:
    """Let a database know where its artifacts are. Raises TerminalFailure for one of others."""
    kept, named = artifact_place.kept_at(path), named_artifacts(database)
    if named is not None:
        refuse_other_artifacts(path, named, str(path))
    if kept is None or (named and str(artifact_address_of(named)) == str(kept.address)):
        return
    with database.write() as connection:
        applied.set_mark(connection, ARTIFACT_STORE, kept.named())


def may_hold_artifacts(path: Path) -> bool:
    """Whether artifacts of a state folder may be there, although its database is not."""
    return (path / ARTIFACTS).is_dir() or artifact_place.kept_at(path) is not None


def _make_private(path: Path) -> None:
    """Close what is ours in a state folder to others, whatever the umask was.

    A folder that was there before, perhaps a project's, keeps its own mode; and a file that its
    owner may not write stays so: it is kept as an archive. The database does the same for itself.
    """
    here = ARTIFACTS if artifact_place.kept_at(path) is None else COPIES
    for name in (here, "logs", "reports"):
        with contextlib.suppress(OSError):
            (path / name).mkdir(mode=0o700)
            (path / name).chmod(0o700)
        with contextlib.suppress(OSError):
            (path / name).chmod((path / name).stat().st_mode & 0o700)
