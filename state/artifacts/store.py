"""Artifact folders: ``artifacts/<stage>/<action digest>/`` with ``manifest.json`` written last.

A reader accepts nothing without a manifest and verifies hashes before use.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopscope.specs.canonical import canonical_json
from loopscope.specs.canonical import digest as digest_of
from loopscope.state import failpoints
from loopscope.state.files import durable_replace, file_sha256, fsync_path, sha256_in_slices
from loopscope.state.records import ArtifactRecord, FileEntry

MANIFEST = "manifest.json"
MANIFEST_BYTES_MAX = 16 * 1024 * 1024
_SEAL = "manifestDigest"
"""The digest of all other fields: whoever edits one of them breaks it."""
CREATED_AT_MAX = 253_402_300_799  # the end of the year 9999: later times have no date


Signature = tuple[tuple[int, ...], ...]


class Corrupt(Exception):
    """An artifact folder does not hold what its manifest says."""


class Differs(Corrupt):
    """An artifact folder is not the one that was recorded; it may be whole by itself."""


NOT_DAMAGE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR))
"""What says something about this process, not about the file that it could not read."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn an error of reading ``what`` into Corrupt, unless it says nothing about the file.

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


@dataclass(frozen=True)
class ArtifactStore:
    """All artifact folders of one state folder."""

    root: Path

    def folder(self, stage: str, digest: str) -> Path:
        """Return where the artifact of an action lies once it is published."""
        return self.root / stage / digest

    def work_folder(self, digest: str) -> Path:
        """Return the folder of an action's sealed shards; it survives a crash."""
        return self.root / ".work" / digest

    def staging_folder(self, digest: str, token: int) -> Path:
        """Return a new, empty folder for the payload of one attempt."""
        folder = self.root / ".staging" / f"{digest}-{token}"
        shutil.rmtree(folder, ignore_errors=True)
        failpoints.reach("staging-create")
        folder.mkdir(parents=True)
        return folder

    def seal(self, staging: Path, manifest: dict[str, Any]) -> ArtifactRecord:
        """Hash and fsync the payload in ``staging``, then write its manifest, last."""
        files = {}
        for path in sorted(p for p in staging.rglob("*") if p.is_file()):
            fsync_path(path)
            name = path.relative_to(staging).as_posix()
            files[name] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
        for folder in (p for p in staging.rglob("*") if p.is_dir()):
            fsync_path(folder)
        told = {**manifest, "files": files, "contentDigest": content_digest(files)}
        complete = json.loads(json.dumps(told, allow_nan=False))
        complete[_SEAL] = digest_of(complete)
        temporary = staging / f".{MANIFEST}.tmp"
        failpoints.reach("manifest-write")
        temporary.write_text(json.dumps(complete, indent=1, sort_keys=True, allow_nan=False))
        durable_replace(temporary, staging / MANIFEST)
        return _record(complete)

    def earlier(self, record: ArtifactRecord) -> Earlier:
        """Look, before the transaction that publishes, for a whole artifact with the same files.

        It is made durable: who renamed it may have died before that was done.
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
        before = earlier or self.earlier(record)
        if before.record is not None and self.signature(record) == before.signature:
            shutil.rmtree(staging, ignore_errors=True)
            return before.record
        if os.path.lexists(final):
            self.quarantine(record.stage, record.digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        failpoints.reach("artifact-rename")
        staging.rename(final)
        self._make_place_durable(record)
        return record

    def make_durable(self, record: ArtifactRecord) -> None:
        """Force an artifact that somebody else left in its place to the disk.

        Who renamed it may have died, or failed, before that was durable.
        """
        folder = self.folder(record.stage, record.digest)
        for path in sorted(folder.rglob("*")):
            fsync_path(path)
        fsync_path(folder)
        self._make_place_durable(record)

    def _make_place_durable(self, record: ArtifactRecord) -> None:
        for folder in (self.root / record.stage, self.root, self.root.parent):
            fsync_path(folder)  # who made these may have died before they were durable, too

    def discard_staging(self, keep_tokens: set[int]) -> None:
        """Remove what attempts left behind that no longer hold their job."""
        failpoints.reach("staging-discard")
        for folder in (self.root / ".staging").glob("*-*"):
            token = folder.name.rpartition("-")[2]
            if not token.isdigit() or int(token) not in keep_tokens:
                shutil.rmtree(folder, ignore_errors=True)

    def discard_work(self, digest: str) -> None:
        """Remove the shards of an action whose artifact is published."""
        failpoints.reach("work-discard")
        shutil.rmtree(self.work_folder(digest), ignore_errors=True)

    def discard_finished_work(self, published: Collection[str]) -> None:
        """Remove shards that a worker left behind which died right after publishing."""
        for folder in (self.root / ".work").glob("*"):
            if folder.name in published:
                self.discard_work(folder.name)

    def manifest(self, stage: str, digest: str) -> dict[str, Any]:
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
                manifest = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(manifest, dict):
                raise Corrupt(f"{path} is not a manifest")
            rest = {name: value for name, value in manifest.items() if name != _SEAL}
            if manifest.get(_SEAL) != digest_of(rest):
                raise Corrupt(f"manifest of {stage}/{digest[:12]} was edited after it was written")
        except (ValueError, RecursionError) as error:
            raise Corrupt(f"{path} cannot be read: {error}") from None
        return manifest

    def record(self, stage: str, digest: str) -> ArtifactRecord:
        """Return the record in an artifact's manifest. Raises Corrupt."""
        manifest = self.manifest(stage, digest)
        try:
            found = _record(manifest)
            sound = (
                (found.stage, found.digest) == (stage, digest)
                and found.content_digest == content_digest(manifest["files"])
                and all(_is_inside(name) for name in found.files)
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise Corrupt(f"manifest of {stage}/{digest[:12]} lacks {error}") from None
        if not sound:
            raise Corrupt(f"manifest of {stage}/{digest[:12]} contradicts itself")
        return found

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

        A tenth of the time of ``check_presence``, which says what is wrong when this is False.
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

    def verify(self, record: ArtifactRecord) -> None:
        """Check presence, the manifest and the sha256 of every file.

        Raises Corrupt (Differs when the folder holds another artifact than ``record``), and
        OSError when that cannot be found out now.
        """
        for _ in self.verifying(record):
            pass

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

    def quarantine(self, stage: str, digest: str) -> Path | None:
        """Move a corrupt artifact aside; return where it lies now, or None if it was gone."""
        folder = self.folder(stage, digest)
        if not os.path.lexists(folder):
            return None
        aside = self.root / ".quarantine" / stage
        aside.mkdir(parents=True, exist_ok=True)
        names = (aside / f"{digest}-{n}" for n in range(10_000))
        target = next(path for path in names if not os.path.lexists(path))
        failpoints.reach("artifact-set-aside")
        folder.rename(target)
        fsync_path(aside)
        return target


def content_digest(files: dict[str, dict[str, Any]]) -> str:
    """Return the digest of the payload files' names and hashes; nothing else enters."""
    return digest_of({name: entry["sha256"] for name, entry in files.items()})


def was_made_again(recorded: ArtifactRecord, whole: ArtifactRecord | None) -> bool:
    """Whether what lies on disk is whole and only newer than what was recorded.

    Other numbers over the same files are no new artifact: somebody edited them.
    """
    if whole is None:
        return False
    return whole.files != recorded.files or whole.metrics == recorded.metrics


def _sizes(record: ArtifactRecord) -> list[tuple[str, int | None]]:
    return [(name, entry.bytes) for name, entry in record.files.items()]


def _stat(path: Path) -> tuple[int, ...]:
    try:
        there = path.lstat()
    except OSError:
        return ()
    return there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns


def _is_linked(folder: Path, file: str) -> bool:
    """Whether the file, or a folder on the way to it, is a symbolic link."""
    if "/" in file and _is_linked(folder, file.rpartition("/")[0]):
        return True
    return (folder / file).is_symlink()


def _is_inside(name: str) -> bool:
    return (
        not Path(name).is_absolute()
        and ".." not in Path(name).parts
        and os.sep + os.sep not in name
        and name.isprintable()  # neither a NUL, which no call takes, nor half a surrogate pair
    )


def _record(manifest: dict[str, Any]) -> ArtifactRecord:
    """Return the record in a manifest. Raises KeyError, TypeError, AttributeError, ValueError."""
    _check_types(manifest)
    return ArtifactRecord(
        stage=manifest["stage"],
        digest=manifest["digest"],
        content_digest=manifest["contentDigest"],
        files={
            name: FileEntry(entry["sha256"], entry["bytes"])
            for name, entry in manifest["files"].items()
        },
        metrics=manifest["metrics"],
        created_at=manifest["createdAt"],
    )


def _check_types(manifest: dict[str, Any]) -> None:
    """Raise ValueError for values that neither the index nor a report could hold."""
    made_at, metrics = manifest["createdAt"], manifest["metrics"]
    if type(made_at) not in (int, float) or not 0 <= made_at <= CREATED_AT_MAX:
        raise ValueError("createdAt as a time")
    if not isinstance(metrics, dict):
        raise ValueError("metrics as an object")
    canonical_json(metrics).encode()
    for entry in manifest["files"].values():
        if type(entry["bytes"]) is not int or not isinstance(entry["sha256"], str):
            raise ValueError("files with their sha256 and bytes")
