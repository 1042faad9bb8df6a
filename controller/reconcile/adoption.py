"""Adoption of whole artifacts that the database does not know, after hashing them.

A command waits for the answer. The loop does not: it hashes a slice at a time, as much as a
step may take, and looks at the object again when the answer is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from loopscope.controller.clock import Clock
from loopscope.specs.keys import Key
from loopscope.state.artifacts.store import ArtifactStore, Corrupt, Signature
from loopscope.state.records import ArtifactRecord

BYTES_PER_STEP = 64 * 1024 * 1024
SECONDS_PER_STEP = 0.05


class StillHashing(Exception):
    """Whether an artifact is whole is not known yet; the hashing goes on."""


class Hashing(Protocol):
    """Determines whether every byte of an artifact is what its manifest records."""

    def is_whole(self, record: ArtifactRecord, key: Key) -> bool:
        """Answer for an object. Raises OSError when that cannot be found out now."""

    def forget(self, digest: str) -> None:
        """Take in that the database knows the artifact."""


@dataclass(frozen=True)
class AtOnce:
    """For callers that wait for the answer."""

    artifacts: ArtifactStore

    def is_whole(self, record: ArtifactRecord, _key: Key) -> bool:
        """Hash the artifact now."""
        try:
            self.artifacts.verify(record)
        except Corrupt:
            return False
        return True

    def forget(self, digest: str) -> None:
        """Remember nothing anyway."""


@dataclass
class _Look:
    """One artifact as it was when its hashing began, and the objects that wait for the answer."""

    record: ArtifactRecord
    signature: Signature
    slices: Iterator[int]
    answer: bool | None = None


@dataclass
class Adoption:
    """Finds out whether artifacts are whole, in slices of limited bytes and seconds a step."""

    artifacts: ArtifactStore
    clock: Clock
    _looks: dict[str, _Look] = field(default_factory=dict)
    _waiting: dict[str, set[Key]] = field(default_factory=dict)
    _budget: int = BYTES_PER_STEP
    _until: float = 0.0

    @property
    def under_way(self) -> bool:
        """Whether an object waits for an answer."""
        return bool(self._waiting)

    def begin_step(self) -> Iterator[list[Key]]:
        """Go on with what is waited for; yield the objects whose answer is there.

        Raises OSError, at the end, when files cannot be read for a reason that is not theirs.
        """
        self._budget, self._until = BYTES_PER_STEP, self.clock.elapsed() + SECONDS_PER_STEP
        trouble: OSError | None = None
        for digest in list(self._waiting):
            look = self._looks[digest]
            try:
                self._go_on(look)
            except OSError as error:
                trouble = error
            if look.answer is not None:
                yield list(self._waiting.pop(digest))
        if trouble is not None:
            raise trouble

    def is_whole(self, record: ArtifactRecord, key: Key) -> bool:
        """Answer for an object. Raises StillHashing, and OSError as ``begin_step`` does."""
        signature = self.artifacts.signature(record)
        look = self._looks.get(record.digest)
        if look is None or (look.record, look.signature) != (record, signature):
            look = _Look(record, signature, self.artifacts.verifying(record))
            self._looks[record.digest] = look
        self._go_on(look)
        if look.answer is None:
            self._waiting.setdefault(record.digest, set()).add(key)
            raise StillHashing(f"{record.stage}/{record.digest[:12]}")
        return look.answer

    def forget(self, digest: str) -> None:
        """Take in that the database knows the artifact."""
        self._looks.pop(digest, None)
        self._waiting.pop(digest, None)

    def _go_on(self, look: _Look) -> None:
        while look.answer is None and self._budget > 0 and self.clock.elapsed() <= self._until:
            try:
                self._budget -= next(look.slices)
            except StopIteration:
                look.answer = True
            except Corrupt:
                look.answer = False
            except OSError:
                look.slices = self.artifacts.verifying(look.record)  # from the beginning
                raise
