"""Converged objects, which a resync skips.

A plan is a function of the database, the disk and the time. Where the database is unchanged and
the plan waits for no time, only the disk can have changed; so only the disk is looked at. Where the
database changed, whom a change concerns was told to look at once: everything is read again besides,
as often as a small share of a core allows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from loopscope.controller.clock import Turns
from loopscope.reconcilers.plan import Done, Plan, Snapshot
from loopscope.specs.keys import Key
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db.connection import Connection
from loopscope.state.db.knowledge import Knowledge, knowledge
from loopscope.state.records import ArtifactRecord

READ_AGAIN_SECONDS = 3600.0
"""However quiet it is, everything is read again this often."""


@dataclass
class Converged:
    """Remembers which objects were in order or wait for others, since the database last changed.

    With each the artifact that it rests on, or stage and digest of the one that it waits for.
    """

    artifacts: ArtifactStore
    rereads: Turns
    """When everything may be read again because the database changed."""
    _known: Knowledge | None = None
    _read_at: float = 0.0
    _resting: dict[Key, ArtifactRecord | None] = field(default_factory=dict)
    _awaited: dict[Key, tuple[str, str]] = field(default_factory=dict)

    def learn(self, snapshot: Snapshot, plan: Plan, artifact: ArtifactRecord | None) -> None:
        """Take in a plan that wrote nothing."""
        key = snapshot.object.key
        self.forget(key)
        if not isinstance(plan.result, Done):
            return
        self._resting[key] = artifact
        if plan.wanted_digest is not None and not snapshot.object.ready:
            self._awaited[key] = (key.kind.lower(), plan.wanted_digest)

    def forget(self, key: Key) -> None:
        """Let an object be read again at the next resync."""
        self._resting.pop(key, None)
        self._awaited.pop(key, None)

    def to_read(self, connection: Connection, everything: Iterable[Key], now: float) -> list[Key]:
        """Return the objects that a resync must read; ``now`` is of a clock that cannot be set."""
        known = knowledge(connection)
        quiet = known == self._known and now - self._read_at < READ_AGAIN_SECONDS
        if not quiet and self.rereads.due:
            with self.rereads.turn():
                self._known, self._read_at = known, now
                self._resting.clear()
                self._awaited.clear()
        artifacts = {a.digest: a for a in self._resting.values() if a is not None}
        fallen = self.artifacts.fallen(artifacts.values())
        return [key for key in everything if not self._stands(key, fallen)]

    def _stands(self, key: Key, fallen: set[str]) -> bool:
        if key not in self._resting:
            return False
        artifact = self._resting[key]
        return not self._has_come(key) and (artifact is None or artifact.digest not in fallen)

    def _has_come(self, key: Key) -> bool:
        """Whether the artifact that an object waits for is there; a failed look is none."""
        awaited = self._awaited.get(key)
        try:
            return awaited is not None and self.artifacts.holds(*awaited)
        except OSError:  # one place that cannot be looked at must not end the whole resync
            return False
