"""A state folder: the database and the artifacts, opened together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from state.artifacts import ArtifactStore
from state.database import Database, open_database
from state.failures import TerminalFailure


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
    return StateFolder(path, open_database(path / "state.db"), ArtifactStore(path / "artifacts"))
