"""SQLite's errors about its file, as failures whose message gives the remedy."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from loopscope.state.failures import Failure, TerminalFailure, TransientFailure
from loopscope.state.files import disk_full_words, free_bytes

_FULL = ("disk is full",)
_BUSY = ("locked", "busy")
_UNREADABLE = ("disk i/o error", "unable to open")
_DAMAGED = ("malformed", "not a database")
_READ_ONLY = ("readonly", "read-only")
ROOM_BYTES = 64 * 1024
"""SQLite's shared index grows by 32 KiB: with less room than this, an I/O error is a full disk."""


def failure_of(error: Exception, path: Path, patience_seconds: float) -> Failure | None:
    """Return what an error means, or None when it is not SQLite's or not about the file itself."""
    cause = error.orig if isinstance(error, DatabaseError) else error
    if not isinstance(cause, sqlite3.DatabaseError):
        return None
    message = str(cause)

    def any_of(words: tuple[str, ...]) -> bool:
        return any(word in message.lower() for word in words)

    if any_of(_FULL) or (any_of(_UNREADABLE) and _is_full(path)):
        return TransientFailure("DiskFull", f"{path} cannot be written: {disk_full_words(path)}")
    if any_of(_BUSY):
        return TransientFailure(
            "DatabaseBusy",
            f"another process held {path} for more than {patience_seconds:.0f} s ({message}); "
            "try again, and look for a process that hangs",
        )
    if any_of(_DAMAGED):
        return TerminalFailure(
            "DatabaseDamaged",
            f"{path} is damaged ({message}); run `loopscope rebuild SPECS`: it sets the database "
            "aside, applies the specs and takes over the artifacts without a run",
        )
    if any_of(_READ_ONLY) or (any_of(_UNREADABLE) and not _may_be_written(path)):
        return TerminalFailure(
            "StateNotWritable",
            f"{path} cannot be written ({message}); give the folder write permission, or "
            "name another one with --state",
        )
    if any_of(_UNREADABLE):
        return TransientFailure(
            "DatabaseUnreadable",
            f"the system refused to read or write {path} ({message}); look at the disk and at the "
            "number of open files, then try again",
        )
    return None


def _is_full(path: Path) -> bool:
    try:
        return free_bytes(path.parent) < ROOM_BYTES
    except OSError:
        return False


def _may_be_written(path: Path) -> bool:
    """Whether permissions allow it; then it is something that may pass, such as open files."""
    file_allows = os.access(path, os.W_OK) if path.exists() else path.parent.is_dir()
    return file_allows and os.access(path.parent, os.W_OK) and not path.is_dir()
