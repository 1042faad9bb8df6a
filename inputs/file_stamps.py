"""File stamps, by which every memo of files recognises a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

SETTLED_NANOSECONDS = 2 * 10**9
"""A file younger than this may still change within one tick of its clock: not remembered."""


class FileStamp(NamedTuple):
    """A stamp that differs after every change of a file's bytes, however it was made.

    Size, modification time and inode alone do not: ``rsync --inplace --times``, ``cp -p`` and
    ``tar`` write other bytes under an old modification time. The time of the last change of the
    inode is set by the system alone.
    """

    bytes: int
    modified_ns: int
    changed_ns: int
    inode: int

    @staticmethod
    def of(path: Path | str) -> FileStamp:
        """Return the stamp of what a path leads to. Raises OSError."""
        found = os.stat(path)  # noqa: PTH116 - ten thousand times
        return FileStamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def is_settled(self, at_ns: int) -> bool:
        """Whether the file was left alone for so long that a later change gets another stamp."""
        return at_ns - self.changed_ns > SETTLED_NANOSECONDS
