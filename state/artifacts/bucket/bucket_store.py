"""Artifacts in a bucket, with copies here: the second kind of store."""

from __future__ import annotations

import errno
import secrets
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from loopscope.state import failpoints
from loopscope.state.artifacts.bucket import keys
from loopscope.state.artifacts.bucket.client import Bucket
from loopscope.state.artifacts.bucket.copies import LocalCopies, size_of
from loopscope.state.artifacts.bucket.kept_shards import BucketShards
from loopscope.state.artifacts.bucket.moved import Moved
from loopscope.state.artifacts.bucket.places import Commit, commit_in, place_of, present
from loopscope.state.artifacts.bucket.stock import stock_of
from loopscope.state.artifacts.bucket.verified import (
    Verified,
    copy_of,
    is_copy,
    is_file,
    manifest_in,
    recorded,
)
from loopscope.state.artifacts.manifests import MANIFEST, Manifest
from loopscope.state.artifacts.store import (
    ArtifactStore,
    Corrupt,
    Earlier,
    Signature,
    Stored,
    Unreachable,
    is_left,
)
from loopscope.state.records import ArtifactRecord

SLICE_BYTES = 1024 * 1024
"""What is hashed between two looks at the clock."""
COMMITS_MAX = 3
_HERE = "on this machine"
"""The place of a payload that is being made."""
ONE_BY_ONE_MAX = 3
"""So many artifacts are looked at by themselves; more cost less in one listing of everything."""


@dataclass(frozen=True)
class BucketStore(ArtifactStore):
    """All artifacts of one state folder, in a bucket that is theirs alone."""

    bucket: Bucket
    copies: LocalCopies
    _uploaded: dict[str, dict[str, str]] = field(default_factory=dict)
    """The tags of the files of attempts that this process uploaded."""
    _verified: Verified = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_verified", Verified(self.bucket))

    @property
    def disk(self) -> Path:
        """Where payloads are made and copies lie."""
        return self.copies.root

    @property
    def place(self) -> str:
        """The URL of the bucket and prefix."""
        return self.bucket.place

    # -- put once ----------------------------------------------------------------------------

    def staging_folder(self, digest: str, token: int) -> Path:
        """Return a new, empty folder here for the payload of one attempt."""
        attempts = self.copies.staging / f"{digest}-{token}"
        shutil.rmtree(attempts, ignore_errors=True)
        failpoints.reach("staging-create")
        folder = attempts / f"{token}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        return folder

    def prepare(self, staging: Path, record: ArtifactRecord) -> Earlier:
        """Look for a whole artifact with the same files; without one upload all but the commit."""
        signature = self.signature(record)
        found = self._as_it_lies(record.stage, record.digest) if signature else None
        if found is not None and found.files == record.files:
            return Earlier(signature, found)
        self._upload(staging, record)
        return Earlier(signature, None)

    def publish(
        self, staging: Path, record: ArtifactRecord, earlier: Earlier | None = None
    ) -> ArtifactRecord:
        """Commit what was uploaded; return the record of what is published then.

        Raises OSError when another attempt was published since the last look; it is taken over.
        """
        before = earlier or self.prepare(staging, record)
        if before.record is not None and self.signature(record) == before.signature:
            shutil.rmtree(staging.parent, ignore_errors=True)
            return before.record
        if staging.name not in self._uploaded:
            self._upload(staging, record)
        self._commit(record, Commit(staging.name, self._uploaded.pop(staging.name)), before)
        with suppress(OSError):  # a copy can be made later
            self.copies.keep(staging, "artifacts", copy_of(record))
        shutil.rmtree(staging.parent, ignore_errors=True)
        return record

    def _upload(self, staging: Path, record: ArtifactRecord) -> None:
        """Upload files and manifest of an attempt; what is there of it is written again."""
        stage, digest, attempt = record.stage, record.digest, staging.name
        self.bucket.put(keys.uploading(stage, digest, attempt), b"")
        folder = keys.files_of(stage, digest, attempt)
        for name, entry in record.files.items():
            self.bucket.upload(f"{folder}/{entry.sha256}", staging / name, entry.sha256)
        manifest = (staging / MANIFEST).read_bytes()
        self.bucket.put(f"{folder}/{MANIFEST}", manifest)
        sizes = {entry.sha256: entry.bytes for entry in record.files.values()}
        found = self.bucket.listed(folder)
        tags = {}
        for name, size in {**sizes, MANIFEST: len(manifest)}.items():
            there = found.get(f"{folder}/{name}") or self.bucket.entry(f"{folder}/{name}")
            if there is None or there.bytes != size:
                kept = 0 if there is None else there.bytes
                raise Unreachable(f"{self.bucket.place} kept {kept} of {size} bytes of {name}")
            tags[name] = there.tag
        self._uploaded[attempt] = tags

    def _commit(self, record: ArtifactRecord, commit: Commit, before: Earlier) -> None:
        key = keys.published(record.stage, record.digest)
        failpoints.reach("artifact-rename")
        for _ in range(COMMITS_MAX):
            if self.bucket.create(key, commit.text()):
                return
            there = self.bucket.get(key)
            if there is None:
                continue
            data, tag = there
            if commit_in(data).attempt == commit.attempt:
                return  # ours: the answer to an earlier request was lost
            if before.signature[:1] != (tag,):
                break
            self._moved.keep_aside(record.stage, record.digest, commit_in(data))
            if self.bucket.replace(key, commit.text(), tag):
                return
        what = "was published by another attempt meanwhile; it is taken over"
        raise OSError(errno.EAGAIN, f"{record.stage}/{record.digest[:12]} {what}")

    def make_durable(self, record: ArtifactRecord) -> None:
        """What a bucket holds is durable."""

    # -- look --------------------------------------------------------------------------------

    def holds(self, stage: str, digest: str) -> bool:
        """Whether an attempt was published, whole or not."""
        return self.bucket.entry(keys.published(stage, digest)) is not None

    def published(self, stage: str) -> set[str]:
        """Return the names of all published attempts of a stage, from a listing."""
        found = self.bucket.listed(f"{keys.PUBLISHED}/{stage}")
        return {key.rpartition("/")[2] for key in found}

    def manifest(self, stage: str, digest: str) -> Manifest:
        """Return an artifact's manifest as it was sealed. Raises Corrupt."""
        return manifest_in(self.bucket, place_of(self.bucket, stage, digest), stage, digest)[0]

    def check_presence(self, record: ArtifactRecord) -> None:
        """Check that every file is there with its size, by a listing. Raises Corrupt."""
        present(self.bucket, record)

    def stands(self, record: ArtifactRecord) -> bool:
        """Whether every file is there with its size."""
        try:
            present(self.bucket, record)
        except (Corrupt, OSError):
            return False
        return True

    def fallen(self, records: Collection[ArtifactRecord]) -> set[str]:
        """Return the digests of the artifacts that do not stand, by one listing of many."""
        if len(records) <= ONE_BY_ONE_MAX:
            return {record.digest for record in records if not self._found_to_stand(record)}
        found = self.bucket.listed()
        folders = {key.rpartition("/")[0] for key in found if key.endswith(f"/{MANIFEST}")}
        attempts = {folder.rpartition("/")[0]: folder for folder in sorted(folders)}

        def stands(record: ArtifactRecord) -> bool:
            folder = attempts.get(f"{record.stage}/{record.digest}")
            if folder is None or keys.published(record.stage, record.digest) not in found:
                return False
            there = (found.get(f"{folder}/{entry.sha256}") for entry in record.files.values())
            sizes = [entry.bytes for entry in record.files.values()]
            return [one.bytes if one else None for one in there] == sizes

        doubtful = [record for record in records if not stands(record)]
        return {record.digest for record in doubtful if not self._found_to_stand(record)}

    def _found_to_stand(self, record: ArtifactRecord) -> bool:
        try:
            present(self.bucket, record)
        except Corrupt:
            return False
        return True

    def signature(self, record: ArtifactRecord) -> Signature:
        """Return the tags of the commit and of all files of the attempt that it names."""
        commit = self.bucket.entry(keys.published(record.stage, record.digest))
        if commit is None:
            return ()
        try:
            found = place_of(self.bucket, record.stage, record.digest).entries
        except Corrupt:
            return (commit.tag,)
        return (commit.tag, *sorted((name, one.tag, one.bytes) for name, one in found.items()))

    def verifying(self, record: ArtifactRecord) -> Iterator[int]:
        """Verify in slices. What the server has not written since it was hashed is not read."""
        place, _ = recorded(self.bucket, record)
        for name, entry in record.files.items():
            if self._verified.is_unchanged(place, entry.sha256):
                yield entry.bytes
            else:
                for piece in self._verified.pieces(place, record, name, SLICE_BYTES):
                    yield len(piece)

    def verify(self, record: ArtifactRecord) -> None:
        """Read and hash every byte, whatever the server says. Raises Corrupt."""
        place, _ = recorded(self.bucket, record)
        for name in record.files:
            for _ in self._verified.pieces(place, record, name):
                pass

    def _as_it_lies(self, stage: str, digest: str) -> ArtifactRecord | None:
        """Return the record of what is published, if the server did not write it since."""
        try:
            found = self.record(stage, digest)
            for _ in self.verifying(found):
                pass
        except Corrupt:
            return None
        return found

    def fetch(self, record: ArtifactRecord) -> Path:
        """Return a folder here with the files as they were hashed when they came down.

        One that is here already is hashed again; it is enough while the bucket gives no answer.
        """
        here = self.copies.held("artifacts", copy_of(record))
        is_whole = here is not None and is_copy(here, record)
        try:
            place, manifest = recorded(self.bucket, record)
        except Unreachable:
            if is_whole and here is not None:
                return here
            raise
        names = [MANIFEST, *(entry.sha256 for entry in record.files.values())]
        if is_whole and here and all(self._verified.is_unchanged(place, name) for name in names):
            return here
        coming = self.copies.new_folder()
        self.copies.make_room(record.bytes)
        for name in record.files:
            self._verified.bring(place, record, name, coming / name)
        (coming / MANIFEST).write_bytes(manifest)
        return self.copies.keep(coming, "artifacts", copy_of(record))

    def fetch_file(self, record: ArtifactRecord, name: str) -> Path:
        """Return the path of a copy of one file of an artifact."""
        entry = record.files[name]
        kept = f"{record.digest}.{entry.sha256[:16]}"
        here = self.copies.held("files", kept)
        is_whole = here is not None and is_file(here / name, entry.sha256)
        try:
            place = place_of(self.bucket, record.stage, record.digest)
        except Unreachable:
            if is_whole and here is not None:
                return here / name
            raise
        if is_whole and here and self._verified.is_unchanged(place, entry.sha256):
            return here / name
        coming = self.copies.new_folder()
        self.copies.make_room(entry.bytes)
        self._verified.bring(place, record, name, coming / name)
        return self.copies.keep(coming, "files", kept) / name

    def let_go(self) -> None:
        """Copies that were fetched until now may make room for others."""
        self.copies.let_go()

    # -- shards of unfinished jobs -------------------------------------------------------------

    def shards(self, digest: str) -> BucketShards:
        """Return the shards of an action."""
        return BucketShards(self.bucket, self.copies, digest)

    def worked_on(self) -> set[str]:
        """Return the digests of the actions that have shards in the bucket."""
        return self.bucket.folders(keys.SHARDS)

    def discard_work(self, digest: str) -> None:
        """Remove the shards of an action."""
        failpoints.reach("work-discard")
        self.bucket.delete(self.bucket.listed(keys.shards_of(digest)))
        self.copies.drop("shards", digest)

    def discard_staging(self, keep_tokens: set[int], newest_token: int = sys.maxsize) -> None:
        """Remove what attempts left behind, here and in the bucket, that do not hold their job."""
        failpoints.reach("staging-discard")
        for folder in self.copies.staging.glob("*-*"):
            token = folder.name.rpartition("-")[2]
            if not token.isdigit() or is_left(int(token), keep_tokens, newest_token):
                shutil.rmtree(folder, ignore_errors=True)
        for key in self.bucket.listed(keys.UPLOADING):
            _, stage, digest, attempt = key.split("/")
            if is_left(keys.token_of(attempt), keep_tokens, newest_token):
                self._moved.remove_attempt(stage, digest, attempt)

    # -- list, set aside, collect ----------------------------------------------------------------

    @property
    def _moved(self) -> Moved:
        return Moved(self.bucket)

    def contents(self) -> Iterator[Stored]:
        """Yield all that lies in the bucket, and payloads that are made here."""
        yield from stock_of(self.bucket)
        for folder in sorted(self.copies.staging.glob("*")):
            with suppress(FileNotFoundError):
                since = folder.stat().st_mtime
                yield Stored("staging", "", folder.name, _HERE, size_of(folder), since)

    def foreign_in(self, record: ArtifactRecord) -> Iterator[Stored]:
        """Yield what lies beside an artifact's attempt and in it, and belongs to neither."""
        place = place_of(self.bucket, record.stage, record.digest)
        own = {place.key(name) for name in (MANIFEST, *(e.sha256 for e in record.files.values()))}
        for key, entry in sorted(self.bucket.listed(f"{record.stage}/{record.digest}").items()):
            in_attempt = keys.is_attempt(key.split("/")[2])
            if key not in own and (not in_attempt or key.startswith(f"{place.folder}/")):
                name = key.rpartition("/")[2]
                yield Stored("foreign", "", name, key, entry.bytes, entry.since)

    def quarantine(self, stage: str, digest: str) -> bool:
        """Set a damaged artifact aside; False if there was none."""
        return self._moved.quarantine(stage, digest)

    def set_aside(self, thing: Stored) -> None:
        """Move something foreign to the quarantine."""
        self._moved.set_aside(thing)

    def remove(self, thing: Stored) -> None:
        """Remove a leftover for good."""
        if thing.place == _HERE:
            shutil.rmtree(self.copies.staging / thing.name, ignore_errors=True)
        elif thing.kind == "staging":
            stage, digest, attempt = thing.place.split("/")
            self._moved.remove_attempt(stage, digest, attempt)
        else:
            self.bucket.delete(self.bucket.listed(thing.place))

    def throw_away(self, thing: Stored, *, now: float) -> None:
        """Move something to the trash."""
        self._moved.throw_away(thing, now)

    def take_back(self, stage: str, digest: str) -> bool:
        """Put an artifact back from the trash into its place; return whether there was one."""
        return self._moved.take_back(stage, digest)

    def empty_trash(self, until: float) -> None:
        """Remove for good what was thrown away at ``until`` or before."""
        self._moved.empty(until)
