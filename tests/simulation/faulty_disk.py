"""A disk that keeps only what was forced to it.

While ``watched`` lasts, ``os.fsync`` notes what became durable instead of waiting for hardware:
of a file its bytes, of a folder its entries (POSIX promises no more). ``cut_power`` then loses
the rest: files whose bytes were never forced become empty, entries that were never forced vanish
or, after a rename, are back where they were. SQLite is taken at its word: with
``synchronous=FULL`` what it committed stays (``tests/unit/test_state_database.py`` holds the
setting), so its file is left alone here.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class FaultyDisk:
    """What is durable under ``root``. Everything that is there at the start counts as durable."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._bytes: dict[int, tuple[int, int]] = {}
        self._entries: dict[int, dict[str, int]] = {}
        self.trust()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take the place of ``os.fsync``."""
        real, os.fsync = os.fsync, self._fsync
        try:
            yield
        finally:
            os.fsync = real

    def trust(self) -> None:
        """Take everything as it lies as durable."""
        self._bytes, self._entries = {}, {}
        for folder, _, files in os.walk(self.root):
            self._note_entries(Path(folder).stat().st_ino, folder)
            for name in files:
                self._note_bytes((Path(folder) / name).stat())

    def cut_power(self, written_anyway: Callable[[], bool]) -> list[str]:
        """Lose what is not durable, except what happened to be written; return what was lost."""
        where = {Path(folder).stat().st_ino: Path(folder) for folder, _, _ in os.walk(self.root)}
        lost = self._lose_in(self.root, where, written_anyway)
        self.trust()
        return lost

    def _fsync(self, descriptor: int) -> None:
        seen = os.fstat(descriptor)
        if stat.S_ISDIR(seen.st_mode):
            self._note_entries(seen.st_ino, descriptor)
        else:
            self._note_bytes(seen)

    def _note_entries(self, inode: int, folder: int | str) -> None:
        with os.scandir(folder) as entries:
            self._entries[inode] = {entry.name: entry.inode() for entry in entries}

    def _note_bytes(self, seen: os.stat_result) -> None:
        self._bytes[seen.st_ino] = (seen.st_size, seen.st_mtime_ns)

    def _lose_in(
        self, folder: Path, where: dict[int, Path], written_anyway: Callable[[], bool]
    ) -> list[str]:
        durable = self._entries.get(folder.stat().st_ino, {})
        lost = []
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            path = Path(entry.path)
            if entry.name.startswith(("state.db", "controller.lock")) or not path.exists():
                continue
            if durable.get(entry.name) != entry.inode() and not written_anyway():
                self._undo(path, entry.inode(), where)
                lost.append(f"entry {path.relative_to(self.root)}")
            elif entry.is_dir(follow_symlinks=False):
                lost += self._lose_in(path, where, written_anyway)
            else:
                seen = entry.stat()
                forced = self._bytes.get(seen.st_ino) == (seen.st_size, seen.st_mtime_ns)
                if not forced and seen.st_size and not written_anyway():
                    path.write_bytes(b"")
                    lost.append(f"bytes of {path.relative_to(self.root)}")
        return lost

    def _undo(self, path: Path, inode: int, where: dict[int, Path]) -> None:
        """Take an entry away, back to where it was renamed from if that is known."""
        for folder, entries in self._entries.items():
            old = next((name for name, number in entries.items() if number == inode), None)
            if old is not None and folder in where and not (where[folder] / old).exists():
                path.rename(where[folder] / old)
                return
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
