"""The trash of a folder store: what was collected waits here, as it was, before it is removed.

``artifacts/.trash/<kind>/<name>``, where an artifact's kind is its stage. When something was
thrown away is its folder's modification time.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loopscope.state import failpoints
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.files import fsync_path

EMPTYING = ".emptying"


@dataclass(frozen=True)
class TrashEntry:
    """Something in the trash; ``since`` is when it was thrown away (Unix seconds)."""

    path: Path
    since: float


@dataclass(frozen=True)
class Trash:
    """The trash of one artifact store, whose root is ``artifacts``."""

    artifacts: Path

    @property
    def root(self) -> Path:
        """Where everything in it lies."""
        return self.artifacts / ".trash"

    def put(self, path: Path, kind: str, name: str, *, now: float) -> None:
        """Move a file or folder here. What was thrown away under that name before is replaced."""
        if not os.path.lexists(path):
            return
        target = self.root / kind / name
        target.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.root, self.artifacts):
            fsync_path(folder)  # else a power cut takes the folder, with all that was moved into it
        self._remove(target)
        failpoints.reach("trash-put")
        if not path.is_symlink():
            os.utime(path, (now, now))
        path.rename(target)
        fsync_path(target.parent)
        fsync_path(path.parent)

    def take_back(self, stage: str, digest: str) -> bool:
        """Put an artifact back into its place; return whether there was one to put back.

        Whether it is whole is for the caller to see, as with any other artifact.
        """
        entry, place = self.root / stage / digest, self.artifacts / stage / digest
        if not (entry / MANIFEST).is_file() or os.path.lexists(place):
            return False
        place.parent.mkdir(parents=True, exist_ok=True)
        failpoints.reach("trash-take-back")
        with contextlib.suppress(FileNotFoundError):  # it is being emptied at this moment
            entry.rename(place)
            fsync_path(place.parent)
            return True
        return False

    def entries(self) -> Iterator[TrashEntry]:
        """Yield what lies here, by kind and name."""
        for kind in _folder(self.root):
            if kind.name != EMPTYING:
                for path in _folder(kind):
                    yield TrashEntry(path, path.lstat().st_mtime)

    def empty(self, until: float) -> None:
        """Remove for good what was thrown away at ``until`` or before."""
        for entry in list(self.entries()):
            if entry.since <= until:
                self._remove(entry.path, until)
        shutil.rmtree(self.root / EMPTYING, ignore_errors=True)  # what a crash left there

    def _remove(self, path: Path, until: float = math.inf) -> None:
        """Remove an entry in one step for others: half an artifact is never taken back.

        What was thrown away under its name after ``until`` stays: who empties may have been stopped
        since it looked.
        """
        if not os.path.lexists(path):
            return
        doomed = self.root / EMPTYING / f"{path.parent.name}-{path.name}"
        doomed.parent.mkdir(parents=True, exist_ok=True)
        _delete(doomed)
        failpoints.reach("trash-empty")
        if path.lstat().st_mtime > until:
            return
        path.rename(doomed)
        _delete(doomed)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _folder(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
