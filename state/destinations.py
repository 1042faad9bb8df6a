"""Files that a user names to be written: whole or not at all, and in words where it cannot be."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from loopscope.state import failpoints
from loopscope.state.failures import TerminalFailure
from loopscope.state.files import durable_replace, free_bytes, is_disk_full


def check_writable_place(path: Path) -> None:
    """Raise TerminalFailure when nothing can be written at ``path``."""
    if path.is_dir():
        raise _bad(f"{path} is a folder; name a file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise _bad(
            f"{path.parent} is not a folder that can be written; create it, or name another place"
        )


def write_whole(path: Path, text: Callable[[], str]) -> Path:
    """Write a file, replacing an older one in one step; return its path.

    A link stays one, and what it leads to is replaced; a device or a pipe is written to. Raises
    TerminalFailure, where the place is no good before the text is asked for.
    """
    place = Path(os.path.realpath(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        with told_of(path):
            path.write_text(text(), encoding="utf-8")  # a rename would take the device away
        return path.absolute()
    check_writable_place(place)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    with told_of(path):
        try:
            failpoints.reach("report-write")
            temporary.write_text(text(), encoding="utf-8")
            durable_replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)
    return path.absolute()


@contextmanager
def told_of(path: Path) -> Iterator[None]:
    """Say of an error of the disk what could not be written. Raises TerminalFailure for it."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            free = next(one for one in (path, *path.absolute().parents) if one.exists())
            raise _bad(
                f"{path} cannot be written: no space left ({free_bytes(free):,} bytes are free at "
                f"{free}); free some, and repeat it, or name another place"
            ) from None
        where = "" if error.filename in (None, str(path)) else f" ({error.filename})"
        raise _bad(f"{path} was not written: {error.strerror or error}{where}") from None


def _bad(words: str) -> TerminalFailure:
    return TerminalFailure("BadDestination", words)
