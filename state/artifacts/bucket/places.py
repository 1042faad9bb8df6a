"""The attempt that is an artifact, and its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from loopscope.state.artifacts.bucket import keys
from loopscope.state.artifacts.bucket.client import Bucket, Entry
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.records import ArtifactRecord

LOST = "0-00000000"
"""An attempt that was never made: what a commit names that cannot be read."""


@dataclass(frozen=True)
class Commit:
    """What the object says that makes an attempt the artifact."""

    attempt: str
    tags: Mapping[str, str]
    """The server's tags of the files when they were committed, hashed on their way up."""

    def text(self) -> bytes:
        """Return it as it is written."""
        return json.dumps({"attempt": self.attempt, "tags": dict(self.tags)}).encode()


@dataclass(frozen=True)
class Place:
    """An artifact's attempt and the files that lie there, by their names in the bucket."""

    folder: str
    commit: Commit
    entries: Mapping[str, Entry]

    def key(self, name: str) -> str:
        """Return the whole name of a file."""
        return f"{self.folder}/{name}"


def commit_in(data: bytes) -> Commit:
    """Return what a commit says; that of no attempt when it cannot be read."""
    try:
        said = json.loads(data)
        attempt, tags = said["attempt"], said["tags"]
        if keys.is_attempt(attempt) and isinstance(tags, dict):
            return Commit(attempt, tags)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return Commit(LOST, {})


def committed(bucket: Bucket, stage: str, digest: str) -> Commit | None:
    """Return which attempt is the artifact, None where there is none."""
    try:
        found = bucket.get(keys.published(stage, digest))
    except ValueError:
        return Commit(LOST, {})
    return None if found is None else commit_in(found[0])


def doubt(bucket: Bucket, stage: str, digest: str) -> None:
    """Let nobody believe the server's tags of an artifact any more: its files are to be read."""
    found = bucket.get(keys.published(stage, digest))
    if found is not None:
        data, tag = found
        bucket.replace(
            keys.published(stage, digest), Commit(commit_in(data).attempt, {}).text(), tag
        )


def place_of(bucket: Bucket, stage: str, digest: str) -> Place:
    """Look at the place of an artifact. Raises Corrupt where there is none."""
    commit = committed(bucket, stage, digest)
    name = f"{stage}/{digest[:12]}"
    if commit is None:
        raise Corrupt(f"{name} is missing")
    if commit.attempt == LOST:
        raise Corrupt(f"{name}: which attempt was published cannot be read")
    folder = keys.files_of(stage, digest, commit.attempt)
    found = bucket.listed(folder)
    return Place(folder, commit, {key.removeprefix(f"{folder}/"): e for key, e in found.items()})


def present(bucket: Bucket, record: ArtifactRecord) -> Place:
    """Check that every file of an artifact is there with its size. Raises Corrupt."""
    place = place_of(bucket, record.stage, record.digest)
    name = f"{record.stage}/{record.digest[:12]}"
    if _entry(bucket, place, MANIFEST) is None:
        raise Corrupt(f"{name} has no manifest")
    for file, entry in record.files.items():
        there = _entry(bucket, place, entry.sha256)
        if there is None:
            raise Corrupt(f"{name}/{file} is missing")
        if there.bytes != entry.bytes:
            raise Corrupt(f"{name}/{file}: expected {entry.bytes} bytes, found {there.bytes}")
    return place


def _entry(bucket: Bucket, place: Place, name: str) -> Entry | None:
    """Return what a listing says of a file; what it leaves out is asked for, it may be old."""
    return place.entries.get(name) or bucket.entry(place.key(name))
