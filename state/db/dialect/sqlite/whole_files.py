"""A SQLite database as files: made private, copied, set aside; all that belongs to it together."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from loopscope.state.files import durable_replace, file_sha256, fsync_path

_PARTS = ("", "-wal", "-shm")
"""A SQLite database and what may lie beside it."""


def log_of(path: Path) -> Path:
    """Return where the log of a database lies while it is in use, or after a crash."""
    return path.with_name(f"{path.name}-wal")


def close_to_others(path: Path) -> None:
    """Make the file if there is none, and close it and its like to others, whatever the umask was.

    A file that its owner may not write stays so: it is kept as an archive.
    """
    if not path.exists():
        # Never opened by us when it exists: closing it would drop SQLite's locks of this process.
        with contextlib.suppress(OSError):  # SQLite's own attempt then reports what is wrong
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            path.chmod(0o600)
    for file in (path, *path.parent.glob(f"{path.name}-*")):
        with contextlib.suppress(OSError):  # a file of SQLite's may vanish with its last user
            file.chmod(file.stat().st_mode & 0o700)


def back_up(path: Path, note: str) -> None:
    """Copy a database beside itself, whole and durable.

    The name holds the content's hash: a copy never replaces a different one, and a migration
    that fails again and again leaves one copy.
    """
    copy = path.with_name(f"{path.name}.copying")
    copy.unlink(missing_ok=True)
    try:
        copy_whole(path, copy)
        name = f"{path.name}.{note}-{file_sha256(copy)[:12]}"
        durable_replace(copy, path.with_name(name))
    finally:
        copy.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a database with all that belongs to it; return its new place."""
    names = (path.with_name(f"{path.name}.set-aside-{n}") for n in range(10_000))
    target = next(p for p in names if not any(Path(f"{p}{part}").exists() for part in _PARTS))
    for part in reversed(_PARTS):  # the database last: while it is there, this is repeated
        beside = Path(f"{path}{part}")
        if beside.exists():
            beside.rename(f"{target}{part}")
    fsync_path(path.parent)
    return target


def copy_whole(path: Path, copy: Path) -> None:
    """Write what the last commit left, wherever it lies, into one file. Refuses damaged ones."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")  # no WAL beside it
        (found,) = target.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(f"malformed: {found}")
