"""Hashing artifacts again, a budget at a time, so that silent corruption is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog

from specs.objects import Key
from state import artifact_index, objects
from state.artifacts import ArtifactStore, Corrupt, was_made_again
from state.records import ArtifactRecord

log = structlog.get_logger("verification")


@dataclass
class Verifier:
    """Walks the known artifacts round robin, at most ``bytes_per_call`` bytes a call."""

    artifacts: ArtifactStore
    bytes_per_call: int
    _after: str = ""

    def verify_some(self, connection: Any) -> list[tuple[ArtifactRecord, str]]:
        """Return the artifacts found damaged, each with what is wrong.

        One that cannot be looked at now (no file handle left, say) is left alone.
        """
        known = sorted(artifact_index.listed(connection), key=lambda a: a.digest)
        turn = [a for a in known if a.digest > self._after] or known
        damaged, budget = [], self.bytes_per_call
        for artifact in turn:
            if budget <= 0:
                break
            budget -= artifact.bytes
            self._after = artifact.digest
            try:
                self.artifacts.verify(artifact)
            except Corrupt as what:
                damaged.append((artifact, str(what)))
            except OSError as error:
                log.warning("cannot verify now", artifact=artifact.digest[:12], error=str(error))
        return damaged

    def set_aside(self, connection: Any, artifact: ArtifactRecord) -> list[Key]:
        """Forget a damaged artifact and move it away; return the objects that rested on it.

        One that was made again since it was recorded (the database is the older of the two) is
        left in place: the objects' next look adopts it.
        """
        artifact_index.forget(connection, artifact.digest)
        if not was_made_again(artifact, self.artifacts.whole(artifact.stage, artifact.digest)):
            self.artifacts.quarantine(artifact.stage, artifact.digest)
        return objects.wanting(connection, artifact.digest)
