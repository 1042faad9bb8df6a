"""Read-only opening of a state folder, whatever its condition."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from loopscope.state.db.database import HEAD_REVISION, Database, schema_revision
from loopscope.state.db.dialect.sqlite.file_systems import refuse_network_file_system
from loopscope.state.failures import Failure, TerminalFailure
from loopscope.state.folder import StateFolder, artifacts_of, open_state


class ReadOnlyDatabase(Database):
    """A database that is neither migrated nor created; ``write`` fails.

    While somebody uses it, or after a crash, SQLite reads through its ``-wal`` and may renew the
    ``-shm`` beside it, which is only an index. Else the file is read as it lies there. Each read
    opens it anew, because somebody may use it by then.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        file = path.resolve().as_uri()

        def connect() -> sqlite3.Connection:
            uri = f"{file}?mode=ro{'' if _log_beside(path).exists() else '&immutable=1'}"
            return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)

        self._engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read transaction."""
        self._files.forget()  # between two reads, whoever uses it may end, and take the log along
        with super().read() as connection:
            yield connection


class CopiedDatabase(Database):
    """A copy of a database, made where one may write; it goes with the process."""

    def __init__(self, path: Path) -> None:
        folder = Path(tempfile.mkdtemp(prefix="loopscope-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        for file in (path, _log_beside(path)):
            if file.exists():
                shutil.copyfile(file, folder / file.name)
        super().__init__(folder / path.name)


def open_to_read(path: Path) -> StateFolder:
    """Open a state folder for a command that only looks; one may not be able to write there.

    It is opened as ever if one may write. Else the database is read as it lies there; or, when that
    needs a write (an older schema, the log of a crash), a copy of it. On a network file system it
    is read only where nobody can be seen to write. Raises TerminalFailure.
    """
    database = path / "state.db"
    if os.access(path, os.W_OK) and os.access(database, os.W_OK):
        return open_state(path)
    if _log_beside(database).exists():
        refuse_network_file_system(database)
    state = look_at(path)
    database = state.database.path
    if not os.access(database, os.R_OK):
        raise TerminalFailure(
            "StateNotReadable",
            f"{database} cannot be read; ask its owner for read permission, or name another "
            "folder with --state",
        )
    try:
        with state.database.read() as connection:
            revision = schema_revision(connection)
        if revision == HEAD_REVISION:
            return state
        if revision is None or revision > HEAD_REVISION:
            raise _wrong_version(path, revision)
    except Failure as failure:
        if failure.reason not in ("StateNotWritable", "DatabaseUnreadable"):
            raise
    return StateFolder(state.path, _copied(database), state.artifacts)


def _copied(path: Path) -> Database:
    try:
        database = CopiedDatabase(path)
    except OSError as error:
        raise TerminalFailure(
            "StateNotReadable", f"{path} could not be copied to be read ({error})"
        ) from None
    with database.read() as connection:
        revision = schema_revision(connection)
    if revision is None:
        raise _wrong_version(path, revision)
    database.migrate()
    return database


def _log_beside(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def look_at(path: Path) -> StateFolder:
    """Return a state folder to read. Opens nothing yet, so a damaged one is welcome."""
    path = path.resolve()
    return StateFolder(path, ReadOnlyDatabase(path / "state.db"), artifacts_of(path))


@contextmanager
def looking_at(path: Path) -> Iterator[StateFolder]:
    """Open a state folder for one look at it, and close it.

    Open it for each look anew: the file is taken to stay as it lies there while nobody uses it.
    Raises FileNotFoundError when there is no database, TerminalFailure when it is not of this
    version (it is not migrated: that would be a change).
    """
    if not (path / "state.db").is_file():
        raise FileNotFoundError(f"no state folder at {path}; `loopscope apply -f …` makes one")
    state = look_at(path)
    try:
        with state.database.read() as connection:
            revision = schema_revision(connection)
        if revision is None or revision != HEAD_REVISION:
            raise _wrong_version(path, revision)
        yield state
    finally:
        state.database.close()


def _wrong_version(path: Path, revision: str | None) -> TerminalFailure:
    if revision is not None and revision > HEAD_REVISION:
        words = f"{path} has schema {revision}, this Loopscope knows {HEAD_REVISION}; upgrade"
        return TerminalFailure("NewerDatabase", words)
    return TerminalFailure(
        "SchemaOutdated",
        f"{path} has schema {revision or 'none'}, this Loopscope knows {HEAD_REVISION}; "
        "`loopscope get experiments` brings it up to date, after a backup",
    )
