"""A state folder: the database and the artifacts, opened together."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from loopscope.state.artifacts.folder_store import FolderStore
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db.database import Database, open_database
from loopscope.state.failures import TerminalFailure


@dataclass(frozen=True)
class StateFolder:
    """``state.db`` and ``artifacts/`` under one folder, private to its user."""

    path: Path
    database: Database
    artifacts: ArtifactStore

    @property
    def leader_lock(self) -> Path:
        """The file that the one controller of this folder holds locked."""
        return self.path / "controller.lock"

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
    _make_private(path)
    return StateFolder(path, open_database(path / "state.db"), artifacts_of(path))


def artifacts_of(path: Path) -> ArtifactStore:
    """Return the artifact store of a state folder; the one place that says which it is."""
    return FolderStore(path / "artifacts")


def _make_private(path: Path) -> None:
    """Close what is ours in a state folder to others, whatever the umask was.

    A folder that was there before, perhaps a project's, keeps its own mode; and what its owner may
    not write stays so: somebody keeps it as an archive.
    """
    database = path / "state.db"
    if not database.exists():
        # Never opened by us when it exists: closing it would drop SQLite's locks of this process.
        with contextlib.suppress(OSError):  # SQLite's own attempt then says what is wrong
            os.close(os.open(database, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            database.chmod(0o600)
    for name in ("artifacts", "logs", "reports"):
        with contextlib.suppress(OSError):
            (path / name).mkdir(mode=0o700)
            (path / name).chmod(0o700)
        _close_to_others(path / name)
    for file in (database, *path.glob("state.db-*")):
        _close_to_others(file)


def _close_to_others(path: Path) -> None:
    with contextlib.suppress(OSError):  # a file of SQLite's may vanish with its last user
        path.chmod(path.stat().st_mode & 0o700)
