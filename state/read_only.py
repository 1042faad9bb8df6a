"""Read-only opening of a state folder, whatever its condition."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loopscope.state.db.database import HEAD_REVISION, Database, schema_revision
from loopscope.state.db.dialect.sqlite.reading import (
    SqliteAsItLies,
    SqliteCopy,
    refuse_where_others_may_write,
)
from loopscope.state.failures import Failure, TerminalFailure
from loopscope.state.folder import (
    DATABASE,
    StateFolder,
    artifacts_of,
    database_of,
    has_database,
    open_state,
    owner_of,
    server_of,
)


def open_to_read(path: Path) -> StateFolder:
    """Open a state folder for a command that only looks; one may not be able to write there.

    It is opened as usual if it may be written. Else the database is read as it lies there; or, if
    that needs a write (an older schema, the log of a crash), a copy of it. On a network file system
    it is read only if no writer can be seen. Raises TerminalFailure.
    """
    database = path / DATABASE
    may_write = os.access(path, os.W_OK) and os.access(database, os.W_OK)
    if server_of(path) or (may_write and owner_of(path) in (None, os.geteuid())):
        return open_state(path)
    refuse_where_others_may_write(database)
    state = look_at(path)
    database = state.path / DATABASE
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
        database = Database(SqliteCopy(path))
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


def look_at(path: Path) -> StateFolder:
    """Return a state folder to read. Opens nothing yet, so a damaged one is welcome."""
    path = path.resolve()
    dialect = database_of(path) if server_of(path) else SqliteAsItLies(path / DATABASE)
    return StateFolder(path, Database(dialect), artifacts_of(path))


@contextmanager
def looking_at(path: Path) -> Iterator[StateFolder]:
    """Open a state folder for one look at it, and close it.

    Open it anew for each look: the file is assumed not to change while it is not in use.
    Raises FileNotFoundError if the database is missing, TerminalFailure if it is not of this
    version (it is not migrated: that would be a change).
    """
    if not has_database(path):
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
