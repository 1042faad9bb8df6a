"""Opening a state folder to look at it, whatever its condition: nothing in it is changed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from state.artifacts import ArtifactStore
from state.database import Database
from state.folder import StateFolder


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
