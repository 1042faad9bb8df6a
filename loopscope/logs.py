"""Log lines of a command: on standard error, from a level on, and in a file beside."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from io import TextIOBase
from pathlib import Path
from typing import TextIO, cast

from loopscope.state.log_files import append

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def log_to_stderr(level: int, log_format: str = "console", also: Path | None = None) -> None:
    """Configure structlog: one line per decision, for people or as JSON.

    ``also`` is a file that gets the same lines without colours, kept within a stated size.

    Imported late: commands that only read do not log.
    """
    import structlog

    as_json = log_format == "json"
    last = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=_is_coloured())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if as_json else []),
            last,
        ],
        logger_factory=structlog.PrintLoggerFactory(
            cast("TextIO", _Both(also)) if also else sys.stderr
        ),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )


def _is_coloured() -> bool:
    """Whether lines are coloured: on a terminal whose user has not said no (no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


class _Both(TextIOBase):
    """Standard error, and a log file that a full disk may keep from growing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, text: str) -> int:
        """Write a piece of a line to both."""
        with contextlib.suppress(OSError):
            append(self._path, _COLOUR.sub("", text).encode())
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Pass on what standard error holds."""
        sys.stderr.flush()
