"""Verified reads from a bucket, hashed as they come down; and copies of them, hashed again."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from loopscope.state.artifacts import manifests
from loopscope.state.artifacts.bucket.client import PIECE_BYTES, Bucket, NotThere
from loopscope.state.artifacts.bucket.places import Place, doubt, present
from loopscope.state.artifacts.manifests import MANIFEST, Manifest
from loopscope.state.artifacts.store import Corrupt, Differs
from loopscope.state.files import file_sha256
from loopscope.state.records import ArtifactRecord


@dataclass(frozen=True)
class Verified:
    """Reads files, and remembers by their tags which ones were right."""

    bucket: Bucket
    _hashed: set[tuple[str, str]] = field(default_factory=set)

    def is_unchanged(self, place: Place, name: str) -> bool:
        """Whether the server has not written a file since its bytes were hashed."""
        if name not in place.entries:
            return False
        tag = place.entries[name].tag
        return place.commit.tags.get(name) == tag or (place.key(name), tag) in self._hashed

    def pieces(
        self, place: Place, record: ArtifactRecord, name: str, piece_bytes: int = PIECE_BYTES
    ) -> Generator[bytes, None, None]:
        """Yield the bytes of a file. Raises Corrupt, at their end when they are not the ones."""
        entry = record.files[name]
        found, key = hashlib.sha256(), place.key(entry.sha256)
        what = f"{record.stage}/{record.digest[:12]}/{name}"
        try:
            for piece in self.bucket.pieces(key, entry.bytes, piece_bytes):
                found.update(piece)
                yield piece
        except NotThere:
            raise Corrupt(f"{what} is missing") from None
        if found.hexdigest() != entry.sha256:
            raise Corrupt(f"{what}: sha256 differs")
        if entry.sha256 in place.entries:
            self._hashed.add((key, place.entries[entry.sha256].tag))

    def bring(self, place: Place, record: ArtifactRecord, name: str, target: Path) -> None:
        """Write a file to the disk. Raises Corrupt where it is not the recorded one, twice."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._write(place, record, name, target)
        except Corrupt:  # it may have been harmed on its way: one look is not enough
            try:
                self._write(place, record, name, target)
            except Corrupt:
                doubt(self.bucket, record.stage, record.digest)
                raise

    def _write(self, place: Place, record: ArtifactRecord, name: str, target: Path) -> None:
        there = place.entries.get(record.files[name].sha256)
        if there is not None and there.bytes != record.files[name].bytes:
            what = f"{record.stage}/{record.digest[:12]}/{name}"
            raise Corrupt(f"{what}: {there.bytes} of {record.files[name].bytes} bytes")
        with target.open("wb") as file, closing(self.pieces(place, record, name)) as pieces:
            for piece in pieces:
                file.write(piece)


def recorded(bucket: Bucket, record: ArtifactRecord) -> tuple[Place, bytes]:
    """Return where an artifact lies, and its manifest as it is written, if it is the recorded one.

    Raises Corrupt where a file is missing or of another size, Differs for another artifact.
    """
    place = present(bucket, record)
    manifest, text = manifest_in(bucket, place, record.stage, record.digest)
    try:
        found = manifests.record_in(manifest, record.stage, record.digest)
    except manifests.BadManifest as error:
        raise Corrupt(str(error)) from None
    if found != record:
        raise Differs(f"{record.stage}/{record.digest[:12]} is not the one that was recorded")
    return place, text


def manifest_in(bucket: Bucket, place: Place, stage: str, digest: str) -> tuple[Manifest, bytes]:
    """Return the manifest of an attempt, and how it is written. Raises Corrupt."""
    key, name = place.key(MANIFEST), f"{stage}/{digest[:12]}"
    try:
        found = bucket.get(key)
        if found is None:
            raise Corrupt(f"{name} has no manifest")
        return manifests.unsealed(found[0].decode(), name, key), found[0]
    except (ValueError, manifests.BadManifest) as error:
        raise Corrupt(str(error)) from None


# -- copies here -------------------------------------------------------------------------------


def copy_of(record: ArtifactRecord) -> str:
    """Return the name of the copy of an artifact: another one for each that has its digest."""
    return f"{record.digest}.{record.content_digest[:16]}.{record.created_at!r}"


def is_copy(folder: Path, record: ArtifactRecord) -> bool:
    """Whether a folder holds an artifact, each byte as it was recorded."""
    name = f"{record.stage}/{record.digest[:12]}"
    try:
        manifest = manifests.unsealed((folder / MANIFEST).read_text(), name, str(folder))
        if manifests.record_in(manifest, record.stage, record.digest) != record:
            return False
    except (OSError, ValueError, manifests.BadManifest):
        return False
    return all(is_file(folder / file, entry.sha256) for file, entry in record.files.items())


def is_file(path: Path, sha256: str) -> bool:
    """Whether a file is there and its bytes have a hash."""
    try:
        return file_sha256(path) == sha256
    except OSError:
        return False
