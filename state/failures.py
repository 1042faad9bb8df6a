"""Failures of two kinds: *retry later* and *a human must act*. A stop is neither.

Each failure carries a closed-vocabulary ``reason`` (CamelCase, shown as a condition reason)
and a ``message`` with what was expected, what was found and what to do.
"""

from __future__ import annotations


class Failure(Exception):
    """Base of every failure that a job may end with."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class TransientFailure(Failure):
    """Retrying later may succeed: out of memory, a busy disk, an unreachable hub."""


class TerminalFailure(Failure):
    """Retrying cannot help: a human must change the spec, a file or the machine."""


PASSING = (TransientFailure, OSError)
"""What may be gone at the next try: a full disk, a busy database, no file descriptors left."""


class JobStopped(Exception):
    """The job was asked to stop (shutdown, cancel, lost lease). Costs no attempt."""


class MadeRoom(JobStopped):
    """The job was asked to make room for another one, and is between two shards."""
