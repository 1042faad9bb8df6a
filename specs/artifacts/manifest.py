"""``manifest.json``: what every artifact says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict


class FileRecord(TypedDict):
    """One payload file."""

    sha256: str
    bytes: int


class Manifest(TypedDict):
    """What a worker tells of a finished job.

    Device, timings, library versions and ``codeHash``, the hash of the sources that ran, are
    recorded here and never enter a digest. A ``batchDivisor`` of 2 says that batches were halved
    because memory ran out: floats may then differ in their last digits from those of an undisturbed
    run. ``inputs`` is the payload without its long lists. Artifacts of earlier versions lack what
    has been added since.
    """

    stage: str
    digest: str
    codeRevision: int
    codeHash: str
    inputs: Mapping[str, object]
    metrics: Mapping[str, object]
    device: str
    batchDivisor: int
    threads: int
    seconds: float
    createdAt: float
    python: str
    machine: str
    libraries: dict[str, str | None]


class SealedManifest(Manifest):
    """The same with the payload; ``manifestDigest`` covers all other fields."""

    files: dict[str, FileRecord]
    contentDigest: str
    manifestDigest: str
