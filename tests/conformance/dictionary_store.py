"""A toy store: files are values of a dictionary, brought to a local folder when fetched."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.state.artifacts import manifests
from loopscope.state.artifacts.manifests import MANIFEST, Manifest
from loopscope.state.artifacts.store import (
    ArtifactStore,
    Corrupt,
    Differs,
    Earlier,
    KeptShards,
    Signature,
    Stored,
    StoredKind,
    is_left,
)
from loopscope.state.records import ArtifactRecord

OWN: dict[str, StoredKind] = {
    "work": "shards", "staging": "staging", "quarantine": "quarantine", "trash": "trash",
}  # fmt: skip


@dataclass
class DictionaryStore(ArtifactStore):
    """Keys are ``<stage>/<digest>/<file>``, or below ``work``, ``quarantine`` and ``trash``."""

    local: Path
    """Where payloads are made, and where files lie once they were fetched."""
    files: dict[str, bytes] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    """When something was thrown away, by its place."""

    @property
    def disk(self) -> Path:
        return self.local

    # -- put once ----------------------------------------------------------------------------

    def staging_folder(self, digest: str, token: int) -> Path:
        folder = self.local / "staging" / f"{digest}-{token}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def prepare(self, staging: Path, record: ArtifactRecord) -> Earlier:
        found = self.whole(record.stage, record.digest)
        same = found is not None and found.files == record.files
        return Earlier(self.signature(record), found if same else None)

    def publish(
        self, staging: Path, record: ArtifactRecord, earlier: Earlier | None = None
    ) -> ArtifactRecord:
        before = earlier or self.prepare(staging, record)
        if before.record is not None and self.signature(record) == before.signature:
            shutil.rmtree(staging)
            return before.record
        self.quarantine(record.stage, record.digest)
        for name in (*record.files, MANIFEST):
            self.files[f"{record.stage}/{record.digest}/{name}"] = (staging / name).read_bytes()
        shutil.rmtree(staging)
        return record

    def make_durable(self, record: ArtifactRecord) -> None:
        """A dictionary is as durable as it gets."""

    # -- look --------------------------------------------------------------------------------

    def holds(self, stage: str, digest: str) -> bool:
        return bool(self._below(f"{stage}/{digest}"))

    def published(self, stage: str) -> set[str]:
        return {name.split("/")[0] for name in self._below(stage)}

    def manifest(self, stage: str, digest: str) -> Manifest:
        name = f"{stage}/{digest[:12]}"
        try:
            text = self.files[f"{stage}/{digest}/{MANIFEST}"].decode()
            return manifests.unsealed(text, name, f"{name}/{MANIFEST}")
        except KeyError:
            raise Corrupt(f"{name} has no manifest") from None
        except (manifests.BadManifest, UnicodeDecodeError) as error:
            raise Corrupt(str(error)) from None

    def check_presence(self, record: ArtifactRecord) -> None:
        found = self._below(f"{record.stage}/{record.digest}")
        for name in (MANIFEST, *record.files):
            if name not in found:
                raise Corrupt(f"{record.digest[:12]}/{name} is missing")
        for name, entry in record.files.items():
            if len(found[name]) != entry.bytes:
                raise Corrupt(f"{record.digest[:12]}/{name}: {len(found[name])} bytes")

    def stands(self, record: ArtifactRecord) -> bool:
        try:
            self.check_presence(record)
        except Corrupt:
            return False
        return True

    def signature(self, record: ArtifactRecord) -> Signature:
        found = self._below(f"{record.stage}/{record.digest}")
        return tuple(sorted((name, _sha256(data)) for name, data in found.items()))

    def verifying(self, record: ArtifactRecord) -> Iterator[int]:
        self.check_presence(record)
        if self.record(record.stage, record.digest) != record:
            raise Differs(f"{record.digest[:12]} is not the one that was recorded")
        for name in record.files:
            yield len(self._verified(record, name))

    def fetch(self, record: ArtifactRecord) -> Path:
        self.verify(record)
        found = self._below(f"{record.stage}/{record.digest}")
        return self._brought(f"{record.stage}/{record.digest}", found)

    def fetch_file(self, record: ArtifactRecord, name: str) -> Path:
        data = self._verified(record, name)
        return self._brought(f"{record.stage}/{record.digest}", {name: data}) / name

    def _verified(self, record: ArtifactRecord, name: str) -> bytes:
        data = self._below(f"{record.stage}/{record.digest}").get(name)
        if data is None or _sha256(data) != record.files[name].sha256:
            raise Corrupt(f"{record.digest[:12]}/{name}: sha256 differs")
        return data

    def _brought(self, place: str, files: dict[str, bytes]) -> Path:
        folder = self.local / "fetched" / place
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder

    def _below(self, place: str) -> dict[str, bytes]:
        start = f"{place}/"
        return {k.removeprefix(start): v for k, v in self.files.items() if k.startswith(start)}

    # -- shards ------------------------------------------------------------------------------

    def shards(self, digest: str) -> KeptShards:
        return DictionaryShards(self, f"work/{digest}")

    def worked_on(self) -> set[str]:
        return {place.split("/")[1] for place in self.files if place.startswith("work/")}

    def discard_work(self, digest: str) -> None:
        self._drop(f"work/{digest}")

    def discard_staging(self, keep_tokens: set[int], newest_token: int = sys.maxsize) -> None:
        for folder in (self.local / "staging").glob("*"):
            if is_left(int(folder.name.rpartition("-")[2]), keep_tokens, newest_token):
                shutil.rmtree(folder)

    # -- list, set aside, collect --------------------------------------------------------------

    def contents(self) -> Iterator[Stored]:
        places = {place: None for key in sorted(self.files) for place in _places(key)}
        for place, kind in ((p, _kind(p)) for p in places):
            yield self._stored(kind, place)
        for folder in sorted((self.local / "staging").glob("*")):
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            place = f"staging/{folder.name}"
            yield Stored("staging", "", folder.name, place, size, folder.stat().st_mtime)

    def foreign_in(self, record: ArtifactRecord) -> Iterator[Stored]:
        place = f"{record.stage}/{record.digest}"
        for name in sorted(self._below(place).keys() - {MANIFEST, *record.files}):
            yield self._stored("foreign", f"{place}/{name}")

    def _stored(self, kind: StoredKind, place: str) -> Stored:
        group, _, name = place.rpartition("/")
        size = len(self.files.get(place, b"")) + sum(map(len, self._below(place).values()))
        if kind not in ("artifact", "quarantine", "trash"):
            group = ""
        return Stored(kind, group.rpartition("/")[2], name, place, size, self.since.get(place, 0.0))

    def quarantine(self, stage: str, digest: str) -> bool:
        return self._move_aside(f"{stage}/{digest}", stage)

    def set_aside(self, thing: Stored) -> None:
        self._move_aside(thing.place, "foreign")

    def _move_aside(self, place: str, group: str) -> bool:
        names = (f"quarantine/{group}/{place.rpartition('/')[2]}-{n}" for n in range(1000))
        return self._move(
            place, next(n for n in names if n not in self.files and not self._below(n))
        )

    def remove(self, thing: Stored) -> None:
        self._drop(thing.place)
        if thing.kind == "staging":
            shutil.rmtree(self.local / thing.place, ignore_errors=True)

    def throw_away(self, thing: Stored, *, now: float) -> None:
        group = thing.group if thing.kind == "artifact" else thing.kind
        if self._below(thing.place):
            self._drop(f"trash/{group}/{thing.name}")
        if self._move(thing.place, f"trash/{group}/{thing.name}"):
            self.since[f"trash/{group}/{thing.name}"] = now

    def take_back(self, stage: str, digest: str) -> bool:
        here = self._below(f"trash/{stage}/{digest}")
        if MANIFEST not in here or self.holds(stage, digest):
            return False
        return self._move(f"trash/{stage}/{digest}", f"{stage}/{digest}")

    def empty_trash(self, until: float) -> None:
        for thing in list(self.contents()):
            if thing.kind == "trash" and thing.since <= until:
                self._drop(thing.place)

    def _move(self, place: str, target: str) -> bool:
        moved = {k: v for k, v in self.files.items() if k == place or k.startswith(f"{place}/")}
        for key, data in moved.items():
            del self.files[key]
            self.files[target + key.removeprefix(place)] = data
        return bool(moved)

    def _drop(self, place: str) -> None:
        for key in [k for k in self.files if k == place or k.startswith(f"{place}/")]:
            del self.files[key]


@dataclass
class DictionaryShards(KeptShards):
    """Shards as values of the dictionary, each with its hash as its seal."""

    store: DictionaryStore
    place: str

    def sealed(self, name: str) -> Path | None:
        found = self.store._below(self.place)
        if found.get(f"{name}.seal") != _sha256(found.get(name, b"")).encode():
            return None
        return self.store._brought(self.place, {name: found[name]}) / name

    def seal(self, name: str, write: Callable[[Path], None]) -> Path:
        path = self.store._brought(self.place, {}) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        data = path.read_bytes()
        self.store.files[f"{self.place}/{name}"] = data
        self.store.files[f"{self.place}/{name}.seal"] = _sha256(data).encode()
        return path

    def names(self) -> list[str]:
        found = sorted(self.store._below(self.place))
        return [name.removesuffix(".seal") for name in found if name.endswith(".seal")]


def _places(key: str) -> Iterator[str]:
    """Yield the place of the thing that a file belongs to."""
    first, *rest = key.split("/")
    depth = 3 if first in ("quarantine", "trash") else 2 if rest and _known(first) else 1
    yield "/".join([first, *rest][:depth])


def _known(first: str) -> bool:
    return first in CODE_REVISIONS or first in OWN


def _kind(place: str) -> StoredKind:
    first = place.split("/")[0]
    return "artifact" if first in CODE_REVISIONS else OWN.get(first, "foreign")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
