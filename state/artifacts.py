"""Artifact folders: ``artifacts/<stage>/<action digest>/`` with ``manifest.json`` written last.

A reader accepts nothing without a manifest and verifies hashes before use.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specs.canonical import digest as digest_of
from state import failpoints
from state.files import durable_replace, file_sha256, fsync_path
from state.records import ArtifactRecord, FileEntry

MANIFEST = "manifest.json"
MANIFEST_BYTES_MAX = 16 * 1024 * 1024


class Corrupt(Exception):
    """An artifact folder does not hold what its manifest says."""


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
        complete = {**manifest, "files": files, "contentDigest": content_digest(files)}
        temporary = staging / f".{MANIFEST}.tmp"
        temporary.write_text(json.dumps(complete, indent=1, sort_keys=True, allow_nan=False))
        durable_replace(temporary, staging / MANIFEST)
        return _record(complete)

    def publish(self, staging: Path, record: ArtifactRecord) -> None:
        """Rename a sealed folder into place. Call inside the transaction that checks the token.

        A valid artifact that is already there wins: its bytes are the same by construction.
        """
        final = self.folder(record.stage, record.digest)
        if final.exists():
            if self._holds(final, record):
                shutil.rmtree(staging, ignore_errors=True)
                return
            self.quarantine(record.stage, record.digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        failpoints.reach("artifact-rename")
        staging.rename(final)
        for folder in (final.parent, self.root, self.root.parent):
            fsync_path(folder)  # whoever made them may have died before they were durable

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

    def manifest(self, stage: str, digest: str) -> dict[str, Any]:
        """Return an artifact's manifest. Raises Corrupt when there is none that can be read."""
        path = self.folder(stage, digest) / MANIFEST
        try:
            if path.stat().st_size > MANIFEST_BYTES_MAX:
                raise Corrupt(f"{path} is larger than {MANIFEST_BYTES_MAX:,} bytes")
            manifest = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise Corrupt(f"{path} cannot be read: {error}") from None
        if not isinstance(manifest, dict):
            raise Corrupt(f"{path} is not a manifest")
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
        except (KeyError, TypeError, AttributeError) as error:
            raise Corrupt(f"manifest of {stage}/{digest[:12]} lacks {error}") from None
        if not sound:
            raise Corrupt(f"manifest of {stage}/{digest[:12]} contradicts itself")
        return found

    def check_presence(self, record: ArtifactRecord) -> None:
        """Check that every file is there with its size; cheap. Raises Corrupt."""
        folder = self.folder(record.stage, record.digest)
        if not folder.is_dir():
            raise Corrupt(f"{record.stage}/{record.digest[:12]} is missing")
        if not (folder / MANIFEST).is_file():
            raise Corrupt(f"{record.stage}/{record.digest[:12]} has no manifest")
        for name, entry in record.files.items():
            try:
                size = (folder / name).stat().st_size
            except OSError:
                raise Corrupt(f"{record.stage}/{record.digest[:12]}/{name} is missing") from None
            if size != entry.bytes:
                raise Corrupt(
                    f"{record.stage}/{record.digest[:12]}/{name}: "
                    f"expected {entry.bytes} bytes, found {size}"
                )

    def verify(self, record: ArtifactRecord) -> None:
        """Check presence and the sha256 of every file. Raises Corrupt."""
        self.check_presence(record)
        if self.record(record.stage, record.digest).files != record.files:
            raise Corrupt(f"manifest of {record.stage}/{record.digest[:12]} was changed")
        folder = self.folder(record.stage, record.digest)
        for name, entry in record.files.items():
            if file_sha256(folder / name) != entry.sha256:
                raise Corrupt(f"{record.stage}/{record.digest[:12]}/{name}: sha256 differs")

    def quarantine(self, stage: str, digest: str) -> Path | None:
        """Move a corrupt artifact aside; return where it lies now, or None if it was gone."""
        folder = self.folder(stage, digest)
        if not folder.exists():
            return None
        aside = self.root / ".quarantine" / stage
        aside.mkdir(parents=True, exist_ok=True)
        target = next(path for n in range(10_000) if not (path := aside / f"{digest}-{n}").exists())
        failpoints.reach("artifact-set-aside")
        folder.rename(target)
        fsync_path(aside)
        return target

    def _holds(self, folder: Path, record: ArtifactRecord) -> bool:
        try:
            self.verify(record)
        except (Corrupt, OSError):
            return False
        return folder.is_dir()


def content_digest(files: dict[str, dict[str, Any]]) -> str:
    """Return the digest of the payload files' names and hashes; nothing else enters."""
    return digest_of({name: entry["sha256"] for name, entry in files.items()})


def _is_inside(name: str) -> bool:
    return (
        not Path(name).is_absolute()
        and ".." not in Path(name).parts
        and os.sep + os.sep not in name
    )


def _record(manifest: dict[str, Any]) -> ArtifactRecord:
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
