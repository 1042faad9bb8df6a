"""A state folder: the database and the artifacts, opened together."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from loopscope.state.artifacts.folder_store import FolderStore
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db.database import Database, open_database
from loopscope.state.db.dialect.contract import Dialect
from loopscope.state.db.dialect.sqlite.file import SqliteFile
from loopscope.state.failures import TerminalFailure

DATABASE = "state.db"


@dataclass(frozen=True)
class StateFolder:
    """A database and ``artifacts/`` under one folder, private to its user."""

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
    database = open_database(database_of(path))  # first: it may refuse the file system
    _make_private(path)
    return StateFolder(path, database, artifacts_of(path))


def database_of(path: Path) -> Dialect:
    """Return the database of a state folder, which may not exist yet."""
    return SqliteFile(path / DATABASE)


def has_database(path: Path) -> bool:
    """Whether a state folder has a database, of whatever condition."""
    return database_of(path).size_bytes() is not None


def artifacts_of(path: Path) -> ArtifactStore:
    """Return the artifact store of a state folder; the one place that chooses it."""
    return FolderStore(path / "artifacts")


def may_hold_artifacts(path: Path) -> bool:
    """Whether artifacts of a state folder may be there, although its database is not."""
    return (path / "artifacts").is_dir()


def _make_private(path: Path) -> None:
    """Close what is ours in a state folder to others, whatever the umask was.

    A folder that was there before, perhaps a project's, keeps its own mode; and a file that its
    owner may not write stays so: it is kept as an archive. The database does the same for itself.
    """
    for name in ("artifacts", "logs", "reports"):
        with contextlib.suppress(OSError):
            (path / name).mkdir(mode=0o700)
            (path / name).chmod(0o700)
        with contextlib.suppress(OSError):
            (path / name).chmod((path / name).stat().st_mode & 0o700)
