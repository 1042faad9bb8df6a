"""Verification: artifacts hashed again, a slice at a time, to find silent corruption.

No file is hashed in a transaction, and none whole in one call: an artifact may have many gigabytes,
and the loop has edits and ended jobs to look at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from loopscope.controller.clock import Clock
from loopscope.specs.keys import Key
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.manifests import was_made_again
from loopscope.state.artifacts.store import ArtifactStore, Corrupt, Signature
from loopscope.state.db import events, objects
from loopscope.state.db.connection import Connection
from loopscope.state.db.database import Database
from loopscope.state.records import ArtifactRecord

LOOK_BYTES = 1024 * 1024
"""What beginning with an artifact counts for: opening its files takes as long as reading this."""
SHARE = 0.005
"""So much of the time between two resyncs, and of a core, goes into hashing at most."""
RECORDS_READ = 64


@dataclass(frozen=True)
class Damage:
    """An artifact that two looks found damaged, and how its folder was at the second."""

    artifact: ArtifactRecord
    what: str
    signature: Signature
    made_again: bool
    """The artifact in its place is whole, and only newer than the database's record."""


Look = Generator[int, None, Damage | None]
"""Yields the bytes that each slice counts for; returns what is wrong, or None."""


@dataclass
class Verifier:
    """Walks the known artifacts round robin, a limited number of bytes or seconds a call."""

    artifacts: ArtifactStore
    clock: Clock
    bytes_per_call: int
    seconds_per_call: float
    damaged: deque[Damage] = field(default_factory=deque)
    """Found and not set aside yet."""
    suspicious: bool = False
    """Whether a first look found damage and the second is under way: it is not to wait."""
    _after: str = ""
    _next: deque[ArtifactRecord] = field(default_factory=deque)
    _look: Look | None = None

    def verify_some(self, database: Database) -> None:
        """Go on where the last call ended; add what is damaged to ``damaged``.

        Raises OSError when files cannot be read for a reason that is not theirs; the next call
        begins with that artifact again.
        """
        budget, until = self.bytes_per_call, self.clock.elapsed() + self.seconds_per_call
        while budget > 0 and self.clock.elapsed() <= until:
            if not self._next and not self._read_more(database):
                return  # every artifact had its turn
            if self._look is None:
                self._look = self._look_at(self._next[0])
            try:
                budget -= next(self._look)
            except StopIteration as ended:
                self._end_look(ended.value)
            except BaseException:
                self._look, self.suspicious = None, False
                raise

    def _read_more(self, database: Database) -> bool:
        with database.read() as connection:
            self._next.extend(artifact_index.following(connection, self._after, RECORDS_READ))
        if not self._next:
            self._after = ""
        return bool(self._next)

    def _end_look(self, found: Damage | None) -> None:
        if found is not None:
            self.damaged.append(found)
        self._after = self._next.popleft().digest
        self._look, self.suspicious = None, False

    def _look_at(self, artifact: ArtifactRecord) -> Look:
        yield LOOK_BYTES
        if (yield from self._damage(artifact)) is None:
            return None
        self.suspicious = True  # it may have been remade meanwhile: one look is not enough
        signature = self.artifacts.signature(artifact)
        what = yield from self._damage(artifact)
        if what is None:
            return None
        return Damage(artifact, what, signature, (yield from self._was_made_again(artifact)))

    def _damage(self, artifact: ArtifactRecord) -> Generator[int, None, str | None]:
        """Return what is wrong with an artifact, or None."""
        try:
            yield from self.artifacts.verifying(artifact)
        except Corrupt as what:
            return str(what)
        return None

    def _was_made_again(self, artifact: ArtifactRecord) -> Generator[int, None, bool]:
        try:
            found = self.artifacts.record(artifact.stage, artifact.digest)
            if found == artifact:
                return False  # by its own manifest, too, it is damaged
            yield from self.artifacts.verifying(found)
        except Corrupt:
            return False
        return was_made_again(artifact, found)

    def set_damaged_aside(self, database: Database) -> Iterator[list[Key]]:
        """Set aside what was found damaged, one by one; yield the objects that rested on it."""
        while self.damaged:
            damage, now = self.damaged[0], self.clock.now()
            with database.write() as connection:
                keys = self._set_aside(connection, damage, now)
                for key in keys:
                    events.record(
                        connection, key, "Warning", "ArtifactDamaged", damage.what, now=now
                    )
            yield keys
            self.damaged.popleft()  # last: after an error it is set aside again

    def _set_aside(self, connection: Connection, damage: Damage, now: float) -> list[Key]:
        """Forget a damaged artifact and move it away; return the objects that rested on it.

        One that was made again since it was recorded (the database is the older of the two) is
        left in place: the next reconcile of the objects adopts it. An artifact that changed since
        it was hashed is left to the next round.
        """
        artifact = damage.artifact
        known = artifact_index.get(connection, artifact.digest)
        if known != artifact or self.artifacts.signature(artifact) != damage.signature:
            return []
        artifact_index.forget(connection, artifact.digest)
        if not damage.made_again:
            self.artifacts.quarantine(artifact.stage, artifact.digest)
        return objects.take_ready_away(connection, artifact.digest, damage.what, now=now)
