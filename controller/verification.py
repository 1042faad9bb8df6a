"""Hashing artifacts again, a budget at a time, so that silent corruption is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specs.objects import Key
from state import artifact_index, objects
from state.artifacts import ArtifactStore, Corrupt
from state.records import ArtifactRecord


@dataclass
class Verifier:
    """Walks the known artifacts round robin, at most ``bytes_per_call`` bytes a call."""

    artifacts: ArtifactStore
    bytes_per_call: int
    _after: str = ""

    def verify_some(self, connection: Any) -> list[tuple[ArtifactRecord, str]]:
        """Return the artifacts found damaged, each with what is wrong."""
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
            except (Corrupt, OSError) as what:
                damaged.append((artifact, str(what)))
        return damaged

    def set_aside(
        self, connection: Any, artifact: ArtifactRecord, what: str, now: float
    ) -> list[Key]:
        """Move a damaged artifact away and forget it; return the objects that rested on it."""
        artifact_index.forget(connection, artifact.digest)
        self.artifacts.quarantine(artifact.stage, artifact.digest)
        return objects.take_ready_away(connection, artifact.digest, what, now=now)
