"""The report that a running stage gives of how far it is."""

from __future__ import annotations

from typing import Protocol


class ProgressReport(Protocol):
    """Reports how far a job is; raises ``JobStopped`` when it must stop."""

    def __call__(
        self, phase: str, done: int, total: int, unit: str, tokens: int | None = None, /
    ) -> None:
        """Take note of ``done`` of ``total`` units in a phase, and of the tokens that they hold."""
