"""Durable file operations: hash, fsync, atomic replace."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from state import failpoints


def file_sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fsync_path(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    failpoints.reach("fsync")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def durable_replace(temporary: Path, final: Path) -> None:
    """Make ``temporary`` durable, then rename it over ``final`` on the same file system."""
    fsync_path(temporary)
    failpoints.reach("replace")
    temporary.replace(final)
    fsync_path(final.parent)
