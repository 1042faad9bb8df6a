"""Writes of commands beside objects: pauses, and jobs cancelled or added by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

from loopscope.specs.keys import Key
from loopscope.state.db import jobs, objects, pauses
from loopscope.state.db.connection import Connection


@dataclass
class OutsideWrites:
    """Compares with the last look. At start everything is listed anyway, so nothing is owed."""

    _paused: frozenset[str] | None = None
    _active: dict[int, str] = field(default_factory=dict)

    @property
    def jobs_are_active(self) -> bool:
        """Whether a job waited or ran at the last look."""
        return bool(self._active)

    def look(self, connection: Connection) -> list[Key]:
        """Return the objects that a pause, its end, or an added or vanished job concerns."""
        paused = frozenset(pauses.listed(connection))
        active = jobs.active_digests(connection)
        touched = {digest for _, digest in active.items() ^ self._active.items()}
        keys = [key for digest in sorted(touched) for key in objects.wanting(connection, digest)]
        if self._paused is not None and paused != self._paused:
            keys += [one.key for one in objects.listed(connection) if not one.ready]
        self._paused, self._active = paused, active
        return keys
