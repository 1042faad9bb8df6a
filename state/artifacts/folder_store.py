"""Artifacts in folders: ``artifacts/<stage>/<action digest>/`` with ``manifest.json`` written last.

A reader accepts nothing without a manifest and verifies hashes before use.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.state import failpoints
from loopscope.state.artifacts import manifests
from loopscope.state.artifacts.manifests import MANIFEST, MANIFEST_BYTES_MAX, Manifest
from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.state.artifacts.store import (
    ArtifactStore,
    Corrupt,
    Differs,
    Earlier,
    Signature,
    Stored,
    StoredKind,
    is_left,
    reading,
)
from loopscope.state.artifacts.trash import Trash
from loopscope.state.files import file_sha256, fsync_path, sha256_in_slices
from loopscope.state.records import ArtifactRecord

_STAGING, _WORK, _QUARANTINE = ".staging", ".work", ".quarantine"


@dataclass(frozen=True)
class FolderStore(ArtifactStore):
    """All artifact folders of one state folder."""

    root: Path

    @property
    def disk(self) -> Path:
        """Where everything lies."""
        return self.root

    def folder(self, stage: str, digest: str) -> Path:
        """Return where the artifact of an action lies once it is published."""
        return self.root / stage / digest

    def work_folder(self, digest: str) -> Path:
        """Return the folder of an action's sealed shards; it survives a crash."""
        return self.root / _WORK / digest

    def staging_folder(self, digest: str, token: int) -> Path:
        """Return a new, empty folder for the payload of one attempt."""
        folder = self.root / _STAGING / f"{digest}-{token}"
        shutil.rmtree(folder, ignore_errors=True)
        failpoints.reach("staging-create")
        folder.mkdir(parents=True)
        return folder

    def prepare(self, staging: Path, record: ArtifactRecord) -> Earlier:
        """Look for a whole artifact with the same files.

        It is made durable: the process that renamed it may have died before that was done.
        """
        signature = self.signature(record)
        there = os.path.lexists(self.folder(record.stage, record.digest))
        found = self.whole(record.stage, record.digest) if there else None
        if found is None or found.files != record.files:
            return Earlier(signature, None)
        self.make_durable(found)
        return Earlier(signature, found)

    def publish(
        self, staging: Path, record: ArtifactRecord, earlier: Earlier | None = None
    ) -> ArtifactRecord:
        """Rename a sealed folder into place; return the record of what lies there then.

        Call inside the transaction that checks the token. A valid artifact that was there
        earlier wins: its bytes are the same by construction, its times are its own.
        """
        final = self.folder(record.stage, record.digest)
        before = earlier or self.prepare(staging, record)
        if before.record is not None and self.signature(record) == before.signature:
            shutil.rmtree(staging, ignore_errors=True)
            return before.record
        if os.path.lexists(final):
            if _folder_in(self.signature(record)) != _folder_in(before.signature):
                what = "was published by another attempt meanwhile; it is taken over"
                raise OSError(errno.EAGAIN, f"{record.stage}/{record.digest[:12]} {what}")
            self.quarantine(record.stage, record.digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        failpoints.reach("artifact-rename")
        staging.rename(final)
        self._make_place_durable(record)
        return record

    def make_durable(self, record: ArtifactRecord) -> None:
        """Force an artifact that another process left in its place to the disk.

        The process that renamed it may have died, or failed, before that was durable.
        """
        folder = self.folder(record.stage, record.digest)
        for path in sorted(folder.rglob("*")):
            fsync_path(path)
        fsync_path(folder)
        self._make_place_durable(record)

    def _make_place_durable(self, record: ArtifactRecord) -> None:
        for folder in (self.root / record.stage, self.root, self.root.parent):
            fsync_path(folder)  # the process that made these may have died before they were durable

    def discard_staging(self, keep_tokens: set[int], newest_token: int = sys.maxsize) -> None:
        """Remove what attempts left behind that no longer hold their job."""
        failpoints.reach("staging-discard")
        for folder in (self.root / _STAGING).glob("*-*"):
            token = folder.name.rpartition("-")[2]
            if not token.isdigit() or is_left(int(token), keep_tokens, newest_token):
                shutil.rmtree(folder, ignore_errors=True)

    def shards(self, digest: str) -> ShardFolder:
        """Return the shards of an action."""
        return ShardFolder(self.work_folder(digest))

    def worked_on(self) -> set[str]:
        """Return the digests of the actions that have shards here."""
        return {folder.name for folder in _entries(self.root / _WORK)}

    def discard_work(self, digest: str) -> None:
        """Remove the shards of an action."""
        failpoints.reach("work-discard")
        shutil.rmtree(self.work_folder(digest), ignore_errors=True)

    def holds(self, stage: str, digest: str) -> bool:
        """Whether anything lies in the place of an artifact; a dead link is nothing."""
        return self.folder(stage, digest).exists()

    def published(self, stage: str) -> set[str]:
        """Return the names of what lies below a stage's folder."""
        try:
            return set(os.listdir(self.root / stage))  # noqa: PTH208 - names only, ten thousand
        except OSError:
            return set()

    def manifest(self, stage: str, digest: str) -> Manifest:
        """Return an artifact's manifest as it was sealed.

        Raises Corrupt when there is none, or when any field of it was edited.
        """
        path = self.folder(stage, digest) / MANIFEST
        try:
            with reading(str(path)):
                size = path.stat().st_size
                if not path.is_file():  # reading a pipe would wait for ever
                    raise Corrupt(f"{path} is not a file")
                if size > MANIFEST_BYTES_MAX:
                    raise Corrupt(f"{path} is larger than {MANIFEST_BYTES_MAX:,} bytes")
                text = path.read_text(encoding="utf-8")
            return manifests.unsealed(text, f"{stage}/{digest[:12]}", str(path))
        except ValueError as error:  # no UTF-8
            raise Corrupt(f"{path} cannot be read: {error}") from None
        except manifests.BadManifest as error:
            raise Corrupt(str(error)) from None

    def check_presence(self, record: ArtifactRecord) -> None:
        """Check that every file is there, in this folder and with its size; cheap.

        Raises Corrupt, and OSError when that cannot be found out now.
        """
        name = f"{record.stage}/{record.digest[:12]}"
        folder = self.folder(record.stage, record.digest)
        if folder.is_symlink():
            raise Corrupt(f"{name} is a link to {folder.readlink()}, not a folder")
        if not folder.is_dir():
            raise Corrupt(f"{name} is missing")
        if not (folder / MANIFEST).is_file():
            raise Corrupt(f"{name} has no manifest")
        for file, expected_bytes in [(MANIFEST, None), *_sizes(record)]:
            with reading(f"{name}/{file}"):
                there = (folder / file).stat()
                linked = _is_linked(folder, file)
            if linked:
                raise Corrupt(f"{name}/{file} is a link, not a file of this artifact")
            if not stat.S_ISREG(there.st_mode):
                raise Corrupt(f"{name}/{file} is not a file")
            if expected_bytes not in (None, there.st_size):
                raise Corrupt(
                    f"{name}/{file}: expected {expected_bytes} bytes, found {there.st_size}"
                )

    def stands(self, record: ArtifactRecord) -> bool:
        """Whether every file is there with its size, at a glance.

        Takes a tenth of the time of ``check_presence``, which finds what is wrong if this is False.
        """
        folder = f"{self.root}/{record.stage}/{record.digest}"
        try:
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                return False
            if not stat.S_ISREG(os.lstat(f"{folder}/{MANIFEST}").st_mode):
                return False
            for name, entry in record.files.items():
                there = os.lstat(f"{folder}/{name}")
                if not stat.S_ISREG(there.st_mode) or there.st_size != entry.bytes:
                    return False
                if "/" in name and _is_linked(Path(folder), name):
                    return False
        except OSError:
            return False
        return True

    def verifying(self, record: ArtifactRecord) -> Iterator[int]:
        """Verify in slices; yield the bytes of each. Raises what ``verify`` raises."""
        self.check_presence(record)
        if self.record(record.stage, record.digest) != record:
            raise Differs(f"{record.stage}/{record.digest[:12]} is not the one that was recorded")
        folder = self.folder(record.stage, record.digest)
        for name, entry in record.files.items():
            with reading(f"{record.stage}/{record.digest[:12]}/{name}"):
                found = yield from sha256_in_slices(folder / name)
            if found != entry.sha256:
                raise Corrupt(f"{record.stage}/{record.digest[:12]}/{name}: sha256 differs")

    def signature(self, record: ArtifactRecord) -> Signature:
        """Return what differs once an artifact's folder or a file of it is another one."""
        folder = self.folder(record.stage, record.digest)
        return tuple(_stat(path) for path in (folder, *(folder / name for name in record.files)))

    def fetch(self, record: ArtifactRecord) -> Path:
        """Return the folder of an artifact, once it is verified."""
        self.verify(record)
        return self.folder(record.stage, record.digest)

    def fetch_file(self, record: ArtifactRecord, name: str) -> Path:
        """Return the path of one file of an artifact, once it is verified."""
        path = self.folder(record.stage, record.digest) / name
        with reading(name):
            if file_sha256(path) != record.files[name].sha256:
                raise Corrupt(f"{record.stage}/{record.digest[:12]}/{name}: sha256 differs")
        return path

    # -- list, set aside, collect ----------------------------------------------------------------

    def contents(self) -> Iterator[Stored]:
        """Yield all that lies here: artifacts and foreign things by place, then the rest."""
        own = {_STAGING, _WORK, _QUARANTINE, Trash(self.root).root.name}
        for entry in _entries(self.root):
            if entry.name in own:
                continue
            if entry.name in CODE_REVISIONS and entry.is_dir():
                for path in _entries(entry):
                    yield from self._stored("artifact", path, entry.name)
            else:
                yield from self._stored("foreign", entry)
        for path in _entries(self.root / _WORK):
            yield from self._stored("shards", path)
        for path in _entries(self.root / _STAGING):
            yield from self._stored("staging", path)
        for group in _entries(self.root / _QUARANTINE):
            for path in _entries(group):
                yield from self._stored("quarantine", path, group.name)
        for thrown in Trash(self.root).entries():
            yield from self._stored("trash", thrown.path, thrown.path.parent.name)

    def foreign_in(self, record: ArtifactRecord) -> Iterator[Stored]:
        """Yield the files in an artifact's folder that its manifest does not name."""
        folder = self.folder(record.stage, record.digest)
        for path in _files_below(folder):
            if path.relative_to(folder).as_posix() not in {MANIFEST, *record.files}:
                yield from self._stored("foreign", path)

    def _stored(self, kind: StoredKind, path: Path, group: str = "") -> Iterator[Stored]:
        """Yield what lies at a path, unless it vanished meanwhile."""
        try:
            there = path.lstat()
        except FileNotFoundError:
            return
        # a rename leaves the modification time and sets the other
        since = there.st_ctime if kind == "quarantine" else there.st_mtime
        place = path.relative_to(self.root).as_posix()
        yield Stored(kind, group, path.name, place, _size(path), since)

    def quarantine(self, stage: str, digest: str) -> bool:
        """Move a corrupt artifact aside; False if it was gone."""
        return self._move_aside(self.folder(stage, digest), stage)

    def set_aside(self, thing: Stored) -> None:
        """Move something foreign to ``.quarantine/foreign``."""
        self._move_aside(self.root / thing.place, "foreign")

    def _move_aside(self, path: Path, group: str) -> bool:
        if not os.path.lexists(path):
            return False
        aside = self.root / _QUARANTINE / group
        aside.mkdir(parents=True, exist_ok=True)
        names = (aside / f"{path.name}-{n}" for n in range(10_000))
        target = next(name for name in names if not os.path.lexists(name))
        failpoints.reach("artifact-set-aside")
        path.rename(target)
        fsync_path(aside)
        return True

    def remove(self, thing: Stored) -> None:
        """Remove a leftover; what cannot be removed now is found again."""
        path = self.root / thing.place
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def throw_away(self, thing: Stored, *, now: float) -> None:
        """Move something to the trash. An artifact's kind there is its stage."""
        path = self.root / thing.place
        if thing.kind == "artifact":
            Trash(self.root).put(path, thing.group, thing.name, now=now)
        else:
            name = f"{thing.group}-{thing.name}".strip("-")
            Trash(self.root).put(path, thing.kind, name, now=now)

    def take_back(self, stage: str, digest: str) -> bool:
        """Put an artifact back from the trash into its place; return whether there was one."""
        return Trash(self.root).take_back(stage, digest)

    def empty_trash(self, until: float) -> None:
        """Remove for good what was thrown away at ``until`` or before."""
        Trash(self.root).empty(until)


def _size(path: Path) -> int:
    """Return the bytes below a path, 0 when something there vanishes meanwhile."""
    try:
        return _bytes_below(path)
    except FileNotFoundError:
        return 0


def _bytes_below(path: Path) -> int:
    """Return the size of a file, or of all files below a folder; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(_bytes_below(entry) for entry in path.iterdir())


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _files_below(folder: Path) -> Iterator[Path]:
    for path in _entries(folder):
        if path.is_dir() and not path.is_symlink():
            yield from _files_below(path)
        else:
            yield path


def _sizes(record: ArtifactRecord) -> list[tuple[str, int | None]]:
    return [(name, entry.bytes) for name, entry in record.files.items()]


def _stat(path: Path) -> tuple[int, ...]:
    try:
        there = path.lstat()
    except OSError:
        return ()
    return there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns


def _folder_in(signature: Signature) -> object:
    """Return which folder a signature is of, whatever became of its files."""
    (of_folder, *_) = signature
    return of_folder[:1] if isinstance(of_folder, tuple) else None


def _is_linked(folder: Path, file: str) -> bool:
    """Whether the file, or a folder on the way to it, is a symbolic link."""
    if "/" in file and _is_linked(folder, file.rpartition("/")[0]):
        return True
    return (folder / file).is_symlink()
