"""Standard output of a command, which ends as ``head`` expects when its reader is gone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

EXIT_PIPE_CLOSED = 141
"""As a shell reports a command that SIGPIPE ended."""


class ReaderGone(BaseException):
    """The other end of standard output or error was closed.

    No OSError: typer and rich turn a broken pipe into exit status 1, and the controller takes it
    for trouble that may pass.
    """


class Outlet:
    """A text stream that raises ``ReaderGone`` where writing to a closed pipe fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write as the stream does; return the number of characters."""
        with _heeding():
            return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write as the stream does."""
        with _heeding():
            self._stream.writelines(lines)

    def flush(self) -> None:
        """Flush as the stream does."""
        with _heeding():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def outlets() -> Iterator[None]:
    """Let whatever is printed meanwhile end the process with 141 when its reader is gone."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, Outlet(one)) if one else one for one in before)
    try:
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()  # here, for at the end of the process it would be too late
    except ReaderGone:
        for stream in before:
            _discard(stream)
        sys.exit(EXIT_PIPE_CLOSED)
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def _heeding() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None


def _discard(stream: TextIO | None) -> None:
    """Let what the stream still holds go nowhere, so that the process can end in silence."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, cast(TextIO, stream).fileno())
        os.close(nowhere)
