"""Where the log lines of a command go: standard error, from a level on."""

from __future__ import annotations

import sys


def log_to_stderr(level: int) -> None:
    """Configure structlog. Imported late: commands that only read do not log."""
    import structlog

    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
