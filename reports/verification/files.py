"""The bytes of a bundle against its own description and against the manifests of its artifacts."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from loopscope.reports.crate import METADATA, SEAL, around, files_of, seal_of, written
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.specs.artifacts.decomposition import FEATURES, PROMPTS, bundled_features
from loopscope.specs.artifacts.stages import FILES_BY_STAGE
from loopscope.specs.pipeline import PIPELINE, Node, NodeName
from loopscope.state.artifacts.manifests import record_in, unsealed
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.files import file_sha256

TABLES = ".parquet"
DESCRIPTION = "description: sealed, written in its one way"
SIZES = "files: all there, none more, sizes and hashes"
MANIFESTS = "manifests: sealed"
ARTIFACTS = "files of artifacts: as their manifests say"
ORIGINS = "tables: from which file of which artifact, as the manifests say"


def check_files(bundle: OpenBundle, findings: Findings) -> None:
    """Compare every byte of a bundle with what it says of itself."""
    with findings.part(DESCRIPTION, METADATA):
        _check_description(bundle, findings)
    for node in PIPELINE:
        with findings.part(MANIFESTS, f"manifests/{node.name}.json"):
            _check_manifest(bundle, node, findings)
    with findings.part(ORIGINS, PROMPTS.name):
        _check_prompts(bundle, findings)
    findings.leave_out(
        "the bytes of tables against their artifacts",
        "a bundle writes them again with their origin; they are compared with the description",
    )


def identifier_of(bundle: OpenBundle) -> str | None:
    """Return the digest by which a bundle is cited, as it stands there; None where it does not."""
    try:
        return next(str(one["value"]) for one in bundle.json(METADATA)["@graph"] if _is_seal(one))
    except (KeyError, TypeError, StopIteration, Corrupt):
        return None


def _is_seal(entity: Mapping[str, Any]) -> bool:
    return bool(entity["@id"] == SEAL)


def _check_description(bundle: OpenBundle, findings: Findings) -> None:
    text = (bundle.folder / METADATA).read_bytes().decode("utf-8")
    crate = json.loads(text)
    if text != written(around(crate["@graph"])):
        other = "other white space, escapes or names beside the graph"
        findings.differs(DESCRIPTION, METADATA, other, "as it is written")
    findings.same(DESCRIPTION, SEAL, identifier_of(bundle), seal_of(crate["@graph"]))
    entities = [one for one in crate["@graph"] if one["@type"] == "File"]
    described = {unquote(one["@id"]): one for one in entities}
    found = set(files_of(bundle.folder))
    for name in sorted(set(described) - found):
        findings.differs(SIZES, name, "described", "not there")
    for name in sorted(found - set(described)):
        findings.differs(SIZES, name, "not described", "there")
    for name in sorted(found & set(described)):
        path, one = bundle.folder / name, described[name]
        if not stat.S_ISREG(path.lstat().st_mode):
            findings.differs(SIZES, name, "a file", "something else")
            continue
        findings.same(SIZES, f"{name}, bytes", one["contentSize"], str(path.stat().st_size))
        findings.same(SIZES, f"{name}, sha256", one["sha256"], file_sha256(path))


def _check_manifest(bundle: OpenBundle, node: Node, findings: Findings) -> None:
    name = f"manifests/{node.name}.json"
    path = bundle.folder / name
    if not path.is_file():
        for file, _ in _bundled(node):
            if bundle.has(file):
                findings.differs(ARTIFACTS, file, "there", f"without {name}")
        return
    text = path.read_text(encoding="utf-8")
    manifest = unsealed(text, node.name, name)
    record = record_in(manifest, manifest["stage"], manifest["digest"])
    findings.same(MANIFESTS, f"{name}, stage", record.stage, node.stage)
    missing = []
    for bundled, own in _bundled(node):
        if own not in record.files:
            if bundle.has(bundled):
                findings.differs(ARTIFACTS, bundled, "there", "not in its manifest")
            continue
        if own.endswith(TABLES):
            _compare_origin(bundle, bundled, manifest, own, findings)
        else:
            _compare(bundle, bundled, record.files[own].sha256, record.files[own].bytes, findings)
    held = {own for _, own in _bundled(node)}
    missing = sorted(set(record.files) - held - {PROMPTS.name, FEATURES.name})
    if missing:
        findings.leave_out(f"{', '.join(missing)} of {node.name}", "not in the bundle")


def _bundled(node: Node) -> Iterator[tuple[str, str]]:
    """Yield the files that a bundle takes over from a stage as they are: its name there, its own.

    Prompts are apart: they are those of the capture or of the coarse decomposition.
    """
    for file in FILES_BY_STAGE[node.stage]:
        if file.bundled is not None and file is not PROMPTS:
            yield f"{file.bundled}/{file.name}".lstrip("/"), file.name


def _check_prompts(bundle: OpenBundle, findings: Findings) -> None:
    """Check the tables that a bundle has from one stage or another, or with a column more."""
    name = f"{PROMPTS.bundled}/{PROMPTS.name}"
    coarse = bundle.manifest("coarse")
    stage: NodeName = "coarse" if coarse and PROMPTS.name in coarse["files"] else "capture"
    _compare_origin(bundle, name, bundle.manifest(stage), PROMPTS.name, findings)
    sides: tuple[Literal["coarse", "fine"], ...] = ("coarse", "fine")
    for side in sides:
        manifest = bundle.manifest(side)
        _compare_origin(bundle, bundled_features(side), manifest, FEATURES.name, findings)


def _compare_origin(
    bundle: OpenBundle, name: str, manifest: Any, own: str, findings: Findings
) -> None:
    """Compare what a table says of its origin with the manifest of that artifact.

    Its bytes are not those of the artifact, whose file names no experiment.
    """
    if not bundle.has(name):
        if manifest is not None:
            findings.differs(ORIGINS, name, "in its manifest", "not there")
        return
    told = bundle.origin(name)
    if manifest is None:
        findings.differs(ORIGINS, name, "there", "without a manifest")
        return
    findings.same(ORIGINS, f"{name}, file", told["file"], own)
    findings.same(ORIGINS, f"{name}, sha256", told["sha256"], manifest["files"][own]["sha256"])
    findings.same(ORIGINS, f"{name}, digest", told["digest"], manifest["digest"])
    findings.same(ORIGINS, f"{name}, stage", told["stage"], manifest["stage"])


def _compare(bundle: OpenBundle, name: str, sha256: str, size: int, findings: Findings) -> None:
    if not bundle.has(name):
        findings.differs(ARTIFACTS, name, "in its manifest", "not there")
        return
    findings.same(ARTIFACTS, f"{name}, bytes", size, _size(bundle, name))
    findings.same(ARTIFACTS, f"{name}, sha256", sha256, file_sha256(bundle.folder / name))


def _size(bundle: OpenBundle, name: str) -> int:
    path: Path = bundle.folder / name
    return path.stat().st_size
