"""The port to artifacts: what a store of them can do, and how it reports a damaged one.

An artifact is a flat set of files under a stage and an action digest, with a manifest that was
written last. It is put once, verified before use, set aside when damaged and thrown away before it
is removed. That the database knows it makes it true; a store only keeps the bytes. Any store must
pass ``tests/conformance/artifact_store.py``.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from loopscope.state.artifacts import manifests
from loopscope.state.artifacts.manifests import Manifest
from loopscope.state.records import ArtifactRecord

Signature = tuple[object, ...]
"""What differs once an artifact, or a file of it, is another one. Only compared for equality."""


class Corrupt(Exception):
    """A stored artifact does not hold what its manifest records."""


class Differs(Corrupt):
    """A stored artifact is not the one that was recorded; it may be whole by itself."""


class Unreachable(OSError):
    """A store that is not on this machine gives no answer: nothing was learned of any artifact."""


def is_left(token: int | None, keep_tokens: Collection[int], newest_token: int) -> bool:
    """Whether an attempt of this token, None for no attempt, can be known to have lost its job."""
    return token is None or (token not in keep_tokens and token <= newest_token)


def unusable(error: Corrupt | OSError) -> str:
    """Return why an artifact cannot be used, beginning with a reason."""
    reason = "ArtifactsUnreachable" if isinstance(error, Unreachable) else "ArtifactDamaged"
    return f"{reason}: {error}"


NOT_DAMAGE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR))
"""Errors that concern this process, not the file that it could not read."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn an error of reading ``what`` into Corrupt, unless it does not concern the file.

    Such an error passes through as OSError: a good artifact must not be set aside for it.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise Corrupt(f"{what} is missing") from None
    except OSError as error:
        if error.errno in NOT_DAMAGE:
            raise
        raise Corrupt(f"{what} cannot be read: {error}") from None


@dataclass(frozen=True)
class Earlier:
    """What lies where an artifact is to be published: how it looks, and what it is if it wins."""

    signature: Signature
    record: ArtifactRecord | None


StoredKind = Literal["artifact", "shards", "staging", "quarantine", "trash", "foreign"]


@dataclass(frozen=True)
class Stored:
    """Something that a store holds."""

    kind: StoredKind
    group: str
    """Stage of an artifact; what it was, in the quarantine and in the trash."""
    name: str
    place: str
    """Where it lies, relative to the store."""
    bytes: int
    since: float
    """When it came to lie there (Unix seconds), as far as the store knows."""


class KeptShards(Protocol):
    """The sealed shards of one unfinished action. They outlive the worker that made them."""

    def sealed(self, name: str) -> Path | None:
        """Return the local path of a shard whose bytes are those that were sealed, else None."""

    def seal(self, name: str, write: Callable[[Path], None]) -> Path:
        """Call ``write(temporary_path)``, keep the result durably under ``name``; return its path.

        Raises OSError; then the shard is as good as absent.
        """

    def names(self) -> list[str]:
        """Return the names of the shards that have a seal."""


class ArtifactStore(Protocol):
    """All artifacts of one state folder, with what is on its way in or out."""

    @property
    def disk(self) -> Path:
        """A folder on the disk where payloads and shards are made: where space can run out."""

    @property
    def place(self) -> str:
        """Where artifacts are kept, for messages."""
        return str(self.disk)

    # -- put once ----------------------------------------------------------------------------

    def staging_folder(self, digest: str, token: int) -> Path:
        """Return a new, empty local folder for the payload of one attempt."""

    def seal(self, staging: Path, manifest: Manifest) -> ArtifactRecord:
        """Hash the payload in ``staging``, then write its manifest, last."""
        return manifests.seal(staging, manifest)

    def prepare(self, staging: Path, record: ArtifactRecord) -> Earlier:
        """Do what is slow about publishing, before the transaction; return what lay there then."""

    def publish(
        self, staging: Path, record: ArtifactRecord, earlier: Earlier | None = None
    ) -> ArtifactRecord:
        """Put a sealed payload into its place; return the record of what lies there then.

        Call inside the transaction that checks the token. A whole artifact with the same files
        that was there earlier wins; a damaged one is set aside.
        """

    def make_durable(self, record: ArtifactRecord) -> None:
        """See to it that an artifact whose publisher may have died survives a power cut."""

    # -- look --------------------------------------------------------------------------------

    def holds(self, stage: str, digest: str) -> bool:
        """Whether anything lies in the place of an artifact, whole or not. Raises OSError."""

    def published(self, stage: str) -> set[str]:
        """Return the names of all that lies in places of artifacts of a stage; cheap."""

    def manifest(self, stage: str, digest: str) -> Manifest:
        """Return an artifact's manifest as it was sealed.

        Raises Corrupt when there is none, or when any field of it was edited.
        """

    def record(self, stage: str, digest: str) -> ArtifactRecord:
        """Return the record in an artifact's manifest. Raises Corrupt."""
        try:
            return manifests.record_in(self.manifest(stage, digest), stage, digest)
        except manifests.BadManifest as error:
            raise Corrupt(str(error)) from None

    def check_presence(self, record: ArtifactRecord) -> None:
        """Check that every file is there, in this artifact and with its size; cheap.

        Raises Corrupt, and OSError when that cannot be found out now.
        """

    def stands(self, record: ArtifactRecord) -> bool:
        """Whether every file is there with its size, at a glance.

        ``check_presence`` finds what is wrong if this is False.
        """

    def fallen(self, records: Collection[ArtifactRecord]) -> set[str]:
        """Return the digests of the artifacts that do not stand. Raises OSError."""
        return {record.digest for record in records if not self.stands(record)}

    def signature(self, record: ArtifactRecord) -> Signature:
        """Return what differs once an artifact or a file of it is another one."""

    def verifying(self, record: ArtifactRecord) -> Iterator[int]:
        """Verify in slices; yield the bytes of each. Raises what ``verify`` raises."""

    def verify(self, record: ArtifactRecord) -> None:
        """Check presence, the manifest and the sha256 of every file.

        Raises Corrupt (Differs when another artifact than ``record`` lies there), and OSError
        when that cannot be found out now.
        """
        for _ in self.verifying(record):
            pass

    def whole(self, stage: str, digest: str) -> ArtifactRecord | None:
        """Return the record of an artifact whose every byte is right by itself, or None.

        Raises OSError when that cannot be found out now.
        """
        try:
            found = self.record(stage, digest)
            self.verify(found)
        except Corrupt:
            return None
        return found

    def fetch(self, record: ArtifactRecord) -> Path:
        """Return a local folder with the manifest and the verified files of an artifact.

        Nothing may be written there. Raises what ``verify`` raises.
        """

    def fetch_file(self, record: ArtifactRecord, name: str) -> Path:
        """Return the local path of one verified file of an artifact. Raises Corrupt and OSError."""

    def let_go(self) -> None:
        """Take in that this process is done with the folders that it fetched until now."""
        return  # a store whose folders stay has nothing to do

    # -- shards of unfinished jobs -------------------------------------------------------------

    def shards(self, digest: str) -> KeptShards:
        """Return the shards of an action; they stay until its artifact is published."""

    def worked_on(self) -> set[str]:
        """Return the digests of the actions that have shards here; cheap. Raises OSError."""

    def discard_work(self, digest: str) -> None:
        """Remove the shards of an action.

        Call inside the transaction that sees that its artifact is published and no job wants them.
        """

    def discard_staging(self, keep_tokens: set[int], newest_token: int = sys.maxsize) -> None:
        """Remove what attempts left behind that no longer hold their job.

        One with a token above the newest that the caller knows of may hold it.
        """

    # -- list, set aside, collect ----------------------------------------------------------------

    def contents(self) -> Iterator[Stored]:
        """Yield all that lies here: artifacts and foreign things by place, then the rest.

        Raises OSError when that cannot be found out now.
        """

    def foreign_in(self, record: ArtifactRecord) -> Iterator[Stored]:
        """Yield what lies in an artifact and belongs to none of its files."""

    def quarantine(self, stage: str, digest: str) -> bool:
        """Set a damaged artifact aside, beside those set aside before; False if there was none."""

    def set_aside(self, thing: Stored) -> None:
        """Move something foreign out of the way; twice is harmless."""

    def remove(self, thing: Stored) -> None:
        """Remove a leftover for good; twice is harmless."""

    def throw_away(self, thing: Stored, *, now: float) -> None:
        """Move something to the trash; what had its name there is replaced. Twice is harmless."""

    def take_back(self, stage: str, digest: str) -> bool:
        """Put an artifact back from the trash into its place; return whether there was one.

        What lies in its place is never overwritten.
        """

    def empty_trash(self, until: float) -> None:
        """Remove for good what was thrown away at ``until`` or before."""
