"""Log files that are kept within a stated size."""

from __future__ import annotations

import contextlib
from pathlib import Path

LOG_BYTES_MAX = 8 * 1024 * 1024
"""A larger log moves to ``<name>.1``, in the place of the one before: 16 MiB a log."""


def log_before(path: Path) -> Path:
    """Return where a log lies that grew too large, until the next one does."""
    return path.with_name(f"{path.name}.1")


def append(path: Path, chunk: bytes) -> None:
    """Write behind what a log holds; one that would grow too large begins anew. Raises OSError.

    It is opened each time: a log that was removed or moved is created again, and several processes
    may write to one.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size + len(chunk) > LOG_BYTES_MAX:
            path.replace(log_before(path))
    with path.open("ab") as log:
        log.write(chunk)
