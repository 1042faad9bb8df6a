"""Opening a state folder to look at it, whatever its condition: nothing in it is changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from loopscope.state.artifacts import ArtifactStore
from loopscope.state.database import HEAD_REVISION, Database, schema_revision
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import StateFolder


class ReadOnlyDatabase(Database):
    """A database that is neither migrated nor created; ``write`` fails.

    While somebody uses it, or after a crash, SQLite reads through its ``-wal`` and may renew the
    ``-shm`` beside it, which is only an index. Else the file is read as it lies there.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        in_use = Path(f"{path}-wal").exists()
        uri = f"{path.resolve().as_uri()}?mode=ro{'' if in_use else '&immutable=1'}"

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)

        self._engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)


def look_at(path: Path) -> StateFolder:
    """Return a state folder to read. Opens nothing yet, so a damaged one is welcome."""
    path = path.resolve()
    return StateFolder(path, ReadOnlyDatabase(path / "state.db"), ArtifactStore(path / "artifacts"))


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
