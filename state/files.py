"""Durable file operations: hash, fsync, atomic replace."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Generator
from pathlib import Path

from loopscope.state import failpoints

SLICE_BYTES = 1024 * 1024
"""Hashed in about a millisecond, where the disk keeps up."""


def file_sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_in_slices(path: Path) -> Generator[int, None, str]:
    """Hash a file in slices: yield the bytes of each, return the hexadecimal sha256.

    The file is not held open between two slices. One that is exchanged meanwhile has a hash that
    belongs to neither.
    """
    found, offset = hashlib.sha256(), 0
    while True:
        with path.open("rb") as stream:
            stream.seek(offset)
            piece = stream.read(SLICE_BYTES)
        found.update(piece)
        offset += len(piece)
        yield len(piece)
        if len(piece) < SLICE_BYTES:
            return found.hexdigest()


def free_bytes(path: Path) -> int:
    """Return how many bytes can still be written on the file system that holds ``path``."""
    return shutil.disk_usage(path).free


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that no space or quota is left, whatever its wording.

    Libraries that write through Rust or C++ raise errors of their own, with the number in the text.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "No space left on device" in str(error) or "os error 28" in str(error)


def disk_full_words(path: Path) -> str:
    """Return how much is free where ``path`` lies, and what to do."""
    return (
        f"no space left: {free_bytes(path):,} bytes are free at {path}; "
        "free some, and it goes on by itself"
    )


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
