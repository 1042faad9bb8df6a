"""Hashing artifacts again, a budget at a time, so that silent corruption is found."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from loopscope.controller.clock import Clock
from loopscope.specs.keys import Key
from loopscope.state import artifact_index, events, objects
from loopscope.state.artifacts import ArtifactStore, Corrupt, was_made_again
from loopscope.state.database import Database
from loopscope.state.records import ArtifactRecord

BYTES_AT_LEAST = 1024 * 1024
"""What a small artifact counts for: opening its files takes as long as reading this much."""
SECONDS_PER_CALL = 0.05
"""After this long the next call goes on, so that a resync takes little of a core."""


@dataclass
class Verifier:
    """Walks the known artifacts round robin: so many bytes a call, or so many seconds."""

    artifacts: ArtifactStore
    clock: Clock
    bytes_per_call: int
    damaged: deque[ArtifactRecord] = field(default_factory=deque)
    """Found and not set aside yet."""
    _after: str = ""

    def verify_some(self, connection: Any) -> None:
        """Add the next artifacts that are damaged to ``damaged``.

        Raises OSError when files cannot be read for a reason that is not theirs; the next call
        goes on there.
        """
        budget, until = self.bytes_per_call, self.clock.elapsed() + SECONDS_PER_CALL
        for artifact in artifact_index.following(connection, self._after):
            if budget <= 0 or self.clock.elapsed() > until:
                return
            budget -= max(artifact.bytes, BYTES_AT_LEAST)
            if self.damage(artifact) is not None:
                self.damaged.append(artifact)
            self._after = artifact.digest
        self._after = ""  # every artifact had its turn

    def damage(self, artifact: ArtifactRecord) -> str | None:
        """Return what is wrong with an artifact, or None."""
        try:
            self.artifacts.verify(artifact)
        except Corrupt as what:
            return str(what)
        return None

    def set_damaged_aside(self, database: Database) -> Iterator[list[Key]]:
        """Set aside what is still damaged, one by one; yield the objects that rested on it."""
        while self.damaged:
            artifact, now = self.damaged[0], self.clock.now()
            what = self.damage(artifact)  # again: it may have been remade meanwhile
            if what is not None:
                with database.write() as connection:
                    keys = self._set_aside(connection, artifact, what, now)
                    for key in keys:
                        events.record(connection, key, "Warning", "ArtifactDamaged", what, now=now)
                yield keys
            self.damaged.popleft()  # last: after an error it is set aside again

    def _set_aside(
        self, connection: Any, artifact: ArtifactRecord, what: str, now: float
    ) -> list[Key]:
        """Forget a damaged artifact and move it away; return the objects that rested on it.

        One that was made again since it was recorded (the database is the older of the two) is
        left in place: the objects' next look adopts it.
        """
        artifact_index.forget(connection, artifact.digest)
        if not was_made_again(artifact, self.artifacts.whole(artifact.stage, artifact.digest)):
            self.artifacts.quarantine(artifact.stage, artifact.digest)
        return objects.take_ready_away(connection, artifact.digest, what, now=now)
