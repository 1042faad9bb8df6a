"""The manifest of an artifact: sealed with a digest of all its fields, believed by itself.

Its content is the same whichever store keeps the bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from loopscope.specs.canonical import canonical_json
from loopscope.specs.canonical import digest as digest_of
from loopscope.state import failpoints
from loopscope.state.files import durable_replace, file_sha256, fsync_path
from loopscope.state.records import ArtifactRecord, FileEntry

MANIFEST = "manifest.json"
MANIFEST_BYTES_MAX = 16 * 1024 * 1024
_SEAL = "manifestDigest"
CREATED_AT_MAX = 253_402_300_799  # the end of the year 9999: later times have no date


class ManifestFile(TypedDict):
    """The entry of one payload file in a manifest."""

    sha256: str
    bytes: int


class Manifest(TypedDict, total=False):
    """The content of a manifest, by its keys. The first four and ``files`` make an artifact.

    Other fields may be missing from one that another version wrote.
    """

    stage: str
    digest: str
    metrics: Mapping[str, object]
    createdAt: float
    """When the work ended (Unix seconds)."""
    files: dict[str, ManifestFile]
    contentDigest: str
    """The digest of the payload files' names and hashes."""
    manifestDigest: str
    """The digest of all other fields: an edit of any of them breaks it."""
    codeRevision: int
    codeHash: str
    inputs: Mapping[str, object]
    """The payload of the job, long lists left out."""
    device: str
    batchDivisor: int
    threads: int
    seconds: float
    python: str
    machine: str
    processor: str
    """The instruction set that torch used, or the card: last bits differ between two of them."""
    libraries: Mapping[str, str | None]
    makers: list[str]
    """Where shards of several kinds of processor or card were allowed: whose there may be."""


class BadManifest(Exception):
    """A manifest that cannot be trusted, and why."""


def seal(staging: Path, manifest: Manifest) -> ArtifactRecord:
    """Hash and fsync the payload in ``staging``, then write its manifest, last."""
    files: dict[str, ManifestFile] = {}
    for path in sorted(p for p in staging.rglob("*") if p.is_file()):
        fsync_path(path)
        name = path.relative_to(staging).as_posix()
        files[name] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    for folder in (p for p in staging.rglob("*") if p.is_dir()):
        fsync_path(folder)
    content = {**manifest, "files": files, "contentDigest": content_digest(files)}
    complete: Manifest = json.loads(json.dumps(content, allow_nan=False))
    complete["manifestDigest"] = digest_of(complete)
    temporary = staging / f".{MANIFEST}.tmp"
    failpoints.reach("manifest-write")
    temporary.write_text(json.dumps(complete, indent=1, sort_keys=True, allow_nan=False))
    durable_replace(temporary, staging / MANIFEST)
    return _record(complete)


def unsealed(text: str, name: str, where: str) -> Manifest:
    """Return the manifest in a text as it was sealed; of which artifact it is and where it lies.

    Raises BadManifest when a field of it was edited, and when it is none.
    """
    try:
        manifest = json.loads(text)
        if not isinstance(manifest, dict):
            raise BadManifest(f"{where} is not a manifest")
        rest = {key: value for key, value in manifest.items() if key != _SEAL}
        if manifest.get(_SEAL) != digest_of(rest):
            raise BadManifest(f"manifest of {name} was edited after it was written")
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"{where} cannot be read: {error}") from None
    return cast(Manifest, manifest)  # a claim about its keys; ``record_in`` checks what it reads


def record_in(manifest: Manifest, stage: str, digest: str) -> ArtifactRecord:
    """Return the record in the manifest of an artifact. Raises BadManifest."""
    name = f"{stage}/{digest[:12]}"
    try:
        found = _record(manifest)
        sound = (
            (found.stage, found.digest) == (stage, digest)
            and found.content_digest == content_digest(manifest["files"])
            and all(_is_inside(file) for file in found.files)
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadManifest(f"manifest of {name} lacks {error}") from None
    if not sound:
        raise BadManifest(f"manifest of {name} contradicts itself")
    return found


def content_digest(files: Mapping[str, ManifestFile]) -> str:
    """Return the digest of the payload files' names and hashes; nothing else enters."""
    return digest_of({name: entry["sha256"] for name, entry in files.items()})


def was_made_again(recorded: ArtifactRecord, whole: ArtifactRecord | None) -> bool:
    """Whether what lies in a store is whole and only newer than what was recorded.

    Other numbers over the same files do not make a new artifact: they were edited.
    """
    if whole is None:
        return False
    return whole.files != recorded.files or whole.metrics == recorded.metrics


def _is_inside(name: str) -> bool:
    return (
        not Path(name).is_absolute()
        and ".." not in Path(name).parts
        and os.sep + os.sep not in name
        and name.isprintable()  # neither a NUL, which no call takes, nor half a surrogate pair
    )


def _record(manifest: Manifest) -> ArtifactRecord:
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
        metrics=dict(manifest["metrics"]),
        created_at=manifest["createdAt"],
    )


def _check_types(manifest: Manifest) -> None:
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
