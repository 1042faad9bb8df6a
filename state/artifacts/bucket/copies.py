"""Local copies of what lies in a bucket: a cache with a bound, and where payloads are made.

A folder that a process was given is held by a shared lock on the folder itself, which ends with the
process. Who makes room takes what was used longest ago and nobody holds, in one step for others:
they see a whole folder or none.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

COPIES_BYTES_MAX = 50 * 1000**3
KINDS = ("artifacts", "files", "shards", "coming")


@dataclass
class LocalCopies:
    """Folders below ``root``, by kind and name. What is held may exceed the bound."""

    root: Path
    bytes_max: int = COPIES_BYTES_MAX
    _held: dict[Path, int] = field(default_factory=dict)
    """Folders that this process was given, with the open descriptor that holds the lock."""

    @property
    def staging(self) -> Path:
        """Where payloads are made."""
        return self.root / "staging"

    def held(self, kind: str, name: str) -> Path | None:
        """Return a folder that is here, held from now on, or None."""
        folder = self.root / kind / name
        if folder in self._held:
            if folder.is_dir():
                return folder
            os.close(self._held.pop(folder))  # somebody removed it by hand
        descriptor = _locked(folder, fcntl.LOCK_SH)
        if descriptor is None:
            return None
        os.utime(folder)  # when it was used last
        self._held[folder] = descriptor
        return folder

    def made(self, kind: str, name: str) -> Path:
        """Return a folder, held from now on; a new one where there is none."""
        (self.root / kind / name).mkdir(parents=True, exist_ok=True)
        return self.held(kind, name) or self.made(kind, name)

    def new_folder(self) -> Path:
        """Return an empty folder that is not a copy yet; held, or it would be removed."""
        return self.made("coming", uuid.uuid4().hex)

    def keep(self, folder: Path, kind: str, name: str) -> Path:
        """Let a folder be the copy of that name, and hold it."""
        place = self.root / kind / name
        place.parent.mkdir(parents=True, exist_ok=True)
        self.drop(kind, name)
        folder.rename(place)
        if folder in self._held:
            self._held[place] = self._held.pop(folder)
        return self.held(kind, name) or place

    def drop(self, kind: str, name: str) -> None:
        """Remove a copy, also while it is in use: it is wrong, or nobody needs it."""
        self._release(self.root / kind / name)
        self._remove(self.root / kind / name)

    def let_go(self) -> None:
        """Hold nothing any more."""
        for folder in list(self._held):
            self._release(folder)

    def make_room(self, bytes_coming: int) -> None:
        """Remove what was used longest ago until so much fits under the bound, if it can."""
        for folder in self._below("going"):  # what a crash left there
            shutil.rmtree(folder, ignore_errors=True)
        found = [
            (folder.stat().st_mtime, size_of(folder), folder)
            for kind in KINDS
            for folder in self._below(kind)
        ]
        excess = sum(size for _, size, _ in found) + bytes_coming - self.bytes_max
        for _, size, folder in sorted(found):
            if excess <= 0:
                return
            if self._removed_unless_in_use(folder):
                excess -= size

    def _removed_unless_in_use(self, folder: Path) -> bool:
        if folder in self._held:
            return False
        descriptor = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if descriptor is None:
            return False
        self._remove(folder)
        os.close(descriptor)
        return True

    def _remove(self, folder: Path) -> None:
        doomed = self.root / "going" / uuid.uuid4().hex
        doomed.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _release(self, folder: Path) -> None:
        descriptor = self._held.pop(folder, None)
        if descriptor is not None:
            os.close(descriptor)

    def _below(self, kind: str) -> list[Path]:
        try:
            return list((self.root / kind).iterdir())
        except FileNotFoundError:
            return []


def size_of(folder: Path) -> int:
    """Return the bytes of the files below a folder; 0 when it vanishes meanwhile."""
    try:
        return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
    except FileNotFoundError:
        return 0


def _locked(folder: Path, how: int) -> int | None:
    """Lock a folder; return the descriptor, or None where there is none or the lock is taken."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, how)
        if os.fstat(descriptor).st_ino == os.stat(folder).st_ino:  # noqa: PTH116
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
