"""Sealed shards in a bucket: the next worker finds them by the action's digest, wherever it runs.

A shard is one object, written at once, whose name ends with the hash of its bytes: its seal.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from loopscope.state import failpoints
from loopscope.state.artifacts.bucket import keys
from loopscope.state.artifacts.bucket.client import Bucket, NotThere
from loopscope.state.artifacts.bucket.copies import LocalCopies
from loopscope.state.artifacts.store import KeptShards
from loopscope.state.files import file_sha256


@dataclass
class BucketShards(KeptShards):
    """The sealed shards of one action, and their copies here."""

    bucket: Bucket
    copies: LocalCopies
    digest: str
    _known: dict[str, list[str]] | None = field(default=None)
    """The hashes under which a shard was sealed, by its name: one, unless machines disagree."""
    _is_wanted: bool = False

    def sealed(self, name: str) -> Path | None:
        """Return the local path of a shard that lies in the bucket as it was sealed, else None."""
        if self._known is None:
            self._known = self._listed()
        elif name not in self._known:  # a share of the job may have sealed it since
            self._known |= self._listed(name)
        for sha256 in self._known.get(name, ()):
            path = self._brought(name, sha256)
            if path is not None:
                return path
        return None

    def seal(self, name: str, write: Callable[[Path], None]) -> Path:
        """Call ``write(temporary_path)``; the result is a shard once the bucket holds it."""
        self._take_out_of_the_trash()
        folder = self.copies.made("shards", self.digest)
        temporary = folder / f".{name}.{os.getpid()}.tmp"
        failpoints.reach("shard-write")
        write(temporary)
        sha256 = file_sha256(temporary)
        tag = self.bucket.upload(self._key(name, sha256), temporary, sha256)
        self._keep(temporary, folder / name, sha256, tag)
        if self._known is not None:
            self._known[name] = [sha256]
        return folder / name

    def names(self) -> list[str]:
        """Return the names of the shards that lie in the bucket."""
        return sorted(self._listed())

    def _brought(self, name: str, sha256: str) -> Path | None:
        there = self.bucket.entry(self._key(name, sha256))
        if there is None:
            return None
        folder = self.copies.made("shards", self.digest)
        if _is_copy(folder / name, sha256, there.tag):
            return folder / name
        self.copies.make_room(there.bytes)
        temporary = folder / f".{name}.{os.getpid()}.tmp"
        try:
            with temporary.open("wb") as file:
                for piece in self.bucket.pieces(self._key(name, sha256), there.bytes):
                    file.write(piece)
        except NotThere:
            return None
        if file_sha256(temporary) != sha256:
            return None
        self._keep(temporary, folder / name, sha256, there.tag)
        return folder / name

    def _keep(self, temporary: Path, path: Path, sha256: str, tag: str) -> None:
        _tag_of(path).write_text(f"{sha256} {tag}")
        temporary.replace(path)

    def _listed(self, name: str = "") -> dict[str, list[str]]:
        below = keys.shards_of(self.digest)
        found: dict[str, list[str]] = defaultdict(list)
        for key in sorted(self.bucket.listed(f"{below}/{name}" if name else below)):
            name, _, sha256 = key.removeprefix(f"{keys.shards_of(self.digest)}/").rpartition("/")
            found[name].append(sha256)
        return dict(found)

    def _take_out_of_the_trash(self) -> None:
        """Once a job seals shards again, those of before are not waiting to be removed."""
        if not self._is_wanted:
            self.bucket.delete(self.bucket.listed(f"{keys.TRASH}/{keys.SHARDS}/{self.digest}"))
            self._is_wanted = True

    def _key(self, name: str, sha256: str) -> str:
        return f"{keys.shards_of(self.digest)}/{name}/{sha256}"


def _tag_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.tag")


def _is_copy(path: Path, sha256: str, tag: str) -> bool:
    """Whether a shard lies here as it lies in the bucket."""
    try:
        same = _tag_of(path).read_text() == f"{sha256} {tag}"
        return same and file_sha256(path) == sha256
    except OSError:
        return False
