"""A cheap test, without a transaction, of whether a step would find anything to do.

An idle controller asks twice a second; a full look would take most of what it takes when idle.
"""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.state.db.database import Database
from loopscope.state.failures import TransientFailure


@dataclass
class Quiet:
    """Remembers the database as it was when a step that left nothing to do began."""

    database: Database
    _marker: int | None = None

    def lasts(self) -> bool:
        """Whether nothing was written since such a step."""
        return self._marker is not None and self._marker == self.now()

    def now(self) -> int | None:
        """Return what to compare with; None when the database does not provide it."""
        try:
            return self.database.marker()
        except TransientFailure:
            return None

    def begins(self, marker: int | None) -> None:
        """Take in that nothing was left to do, as of ``marker``; None: something was."""
        self._marker = marker
