"""Place of artifacts: below the state folder that has them, or in a bucket that it names.

The bucket belongs to one state. Its ``loopscope.json`` says to which, the folder's file says the
same, and so does a mark of the database: two states that collected in one bucket would take each
other's work, and a state that was moved without saying so would make all of it again.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from loopscope.state.artifacts.bucket.address import Address, address_of, bucket_at
from loopscope.state.artifacts.bucket.keys import OWNER
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.failures import TerminalFailure
from loopscope.state.files import durable_replace

STORE = "artifact-store"
"""The file of a state folder that names the bucket."""
COPIES = "artifact-copies"
"""The folder of what was brought from a bucket, or is on its way there."""
FILE_BYTES_MAX = 4_096


@dataclass(frozen=True)
class KeptPlace:
    """The bucket of a state folder, and whose artifacts lie there."""

    address: Address
    owner: str

    def named(self) -> str:
        """Return how it is named in a folder that does not know it yet."""
        written = self.address.written()
        return f"{written}{'&' if '?' in written else '?'}owner={self.owner}"


def kept_at(path: Path) -> KeptPlace | None:
    """Return the bucket that a state folder names, None where artifacts lie below it.

    Raises TerminalFailure where that cannot be read: then it is not taken for no bucket.
    """
    try:
        with (path / STORE).open(encoding="utf-8") as file:
            said = json.loads(file.read(FILE_BYTES_MAX))
        return KeptPlace(address_of(str(said["url"])), str(said["owner"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise TerminalFailure(
            "InvalidArtifactStore",
            f"{path / STORE} cannot be read; it names the bucket with the artifacts of this state: "
            "put it back, or remove it and name the bucket with --artifacts again",
        ) from None


def keep(path: Path, kept: KeptPlace) -> None:
    """Write down which bucket a state folder has."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    written = path / f"{STORE}.{os.getpid()}.new"  # others may do the same beside us
    written.write_text(json.dumps({"url": kept.address.written(), "owner": kept.owner}) + "\n")
    durable_replace(written, path / STORE)


def store_at(path: Path, kept: KeptPlace) -> ArtifactStore:
    """Return the artifacts of a state folder that names a bucket. Raises TerminalFailure."""
    try:
        from loopscope.state.artifacts.bucket.bucket_store import BucketStore
        from loopscope.state.artifacts.bucket.copies import LocalCopies

        bucket = bucket_at(kept.address)
    except ModuleNotFoundError as missing:
        raise _not_installed(missing) from None
    return BucketStore(bucket, LocalCopies(path / COPIES, kept.address.copies_bytes_max))


def claimed(address: Address, ours: Collection[str | None], *, is_new: bool) -> KeptPlace:
    """Return a bucket that belongs to a state: to it already (``ours``), or to nobody yet.

    Only a state that has none may take a new one (``is_new``). Raises TerminalFailure when it is
    another's or cannot do what is needed, OSError when that cannot be found out now.
    """
    try:
        bucket = bucket_at(address)
    except ModuleNotFoundError as missing:
        raise _not_installed(missing) from None
    there = bucket.get(OWNER)
    if there is None and not is_new:
        raise TerminalFailure(
            "AnotherArtifactStore",
            f"the artifacts of this state lie elsewhere, and none of them at {address}; move "
            "them there: `loopscope migrate-state --to URL`",
        )
    if there is None:
        mine = json.dumps({"format": 1, "owner": address.owner or uuid.uuid4().hex}).encode()
        bucket.create(OWNER, mine)
        if bucket.create(OWNER, mine):
            bucket.delete([OWNER])
            raise TerminalFailure(
                "UnfitArtifactStore",
                f"the server of {address} overwrites what must be written once (If-None-Match: *); "
                "use one that honours that",
            )
        there = bucket.get(OWNER)  # another state may have been quicker
        ours = {_owner_in(mine)}
    owner = _owner_in(there[0]) if there else ""
    if owner not in ours:
        raise TerminalFailure(
            "ArtifactsOfAnotherState",
            f"{address} holds the artifacts of another state; name another prefix. If that state "
            f"is this one (its database is lost, or was restored): {address}?owner={owner}",
        )
    return KeptPlace(address, owner)


def _owner_in(data: bytes) -> str:
    try:
        return str(json.loads(data)["owner"])
    except (ValueError, KeyError, TypeError):
        return ""


def _not_installed(missing: ModuleNotFoundError) -> TerminalFailure:
    return TerminalFailure(
        "DriverMissing",
        f"artifacts lie in a bucket, and {missing.name} is not installed: "
        "pip install 'loopscope[s3]'",
    )
