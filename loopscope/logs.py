"""Log lines of a command: on standard error, from a level on."""

from __future__ import annotations

import os
import sys


def log_to_stderr(level: int, log_format: str = "console") -> None:
    """Configure structlog: one line per decision, for people or as JSON.

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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )


def _is_coloured() -> bool:
    """Whether lines are coloured: on a terminal whose user has not said no (no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")
