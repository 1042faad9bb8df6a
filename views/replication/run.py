"""A run as it lies on disk: the stages of an experiment, or of a bundle that somebody exported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas
import pyarrow
import pyarrow.parquet

from loopscope.specs.artifact_files import Document, Shape, Table
from loopscope.specs.artifacts.capture import CAPTURED_PROMPTS
from loopscope.specs.artifacts.decomposition import FEATURES, PROMPTS, bundled_features
from loopscope.specs.artifacts.stages import FILES_BY_STAGE
from loopscope.specs.json_values import JsonObject
from loopscope.specs.pipeline import NODES, PIPELINE, NodeName
from loopscope.state.artifacts.store import Corrupt
from loopscope.views.experiment import ExperimentView
from loopscope.views.tensors import Tensors, read_tensors

BYTES_MAX = 64 * 1024 * 1024
"""Largest JSON document of a bundle that is read."""


@dataclass(frozen=True)
class StageRun:
    """A stage that was run: the digest of its work, that of its bytes, its manifest, its files.

    ``files`` maps the name that a file has in its artifact to where it lies.
    """

    digest: str
    content_digest: str
    manifest: Mapping[str, Any]
    files: Mapping[str, Path]

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What the worker was given."""
        found: Mapping[str, Any] = self.manifest.get("inputs") or {}
        return found

    @property
    def made_with(self) -> str:
        """The processor and the version of torch."""
        libraries: Mapping[str, Any] = self.manifest.get("libraries") or {}
        return f"{self.manifest.get('processor', '?')}, torch {libraries.get('torch', '?')}"

    def tensors(self, name: str) -> Tensors | None:
        """Return the tensors of a file, None without it. Raises Corrupt."""
        return read_tensors(self.files[name]) if name in self.files else None

    def table(self, table: Table) -> pandas.DataFrame | None:
        """Return a table, None without it. Raises Corrupt."""
        path = self.files.get(table.name)
        if path is None:
            return None
        try:
            return pyarrow.parquet.read_table(path).to_pandas()
        except (pyarrow.ArrowException, ValueError, OSError) as error:
            raise Corrupt(f"{path} cannot be read: {error}") from None

    def document(self, document: Document[Shape]) -> Shape | None:
        """Return a document, None without it. Raises Corrupt."""
        path = self.files.get(document.name)
        return None if path is None else cast(Shape, read_json(path))


@dataclass(frozen=True)
class Run:
    """A run by its name, with its experiment's spec and the stages that are there."""

    name: str
    spec: JsonObject
    stages: Mapping[NodeName, StageRun] = field(default_factory=dict)


def run_of(view: ExperimentView) -> Run:
    """Return the run of an experiment, with the stages that have an artifact."""
    stages: dict[NodeName, StageRun] = {}
    for name, stage in view.stages.items():
        if stage.artifact is None or stage.folder is None:
            continue
        files = {file: stage.folder / file for file in stage.artifact.files}
        stages[name] = StageRun(
            stage.artifact.digest, stage.artifact.content_digest, stage.manifest, files
        )
    return Run(view.name, cast(JsonObject, dict(view.experiment.spec)), stages)


def run_of_bundle(folder: Path, spec: JsonObject) -> Run:
    """Return the run of a bundle of the experiment ``spec``. Raises Corrupt."""
    stages: dict[NodeName, StageRun] = {}
    for node in PIPELINE:
        path = folder / "manifests" / f"{node.name}.json"
        if not path.is_file():
            continue
        manifest = read_json(path)
        try:
            stages[node.name] = StageRun(
                str(manifest["digest"]),
                str(manifest["contentDigest"]),
                dict(manifest),
                _bundled(folder, node.name),
            )
        except (KeyError, TypeError, ValueError):
            raise Corrupt(f"{path} is no manifest") from None
    return Run(folder.name, spec, stages)


def _bundled(folder: Path, name: NodeName) -> dict[str, Path]:
    """Return where the files of a stage lie in a bundle."""
    if name == "coarse" or name == "fine":
        places = {
            FEATURES.name: folder / bundled_features(name),
            PROMPTS.name: folder / (PROMPTS.bundled or "") / PROMPTS.name,
        }
        return {file: path for file, path in places.items() if path.is_file()}
    places = {
        file.name: folder / (file.bundled or "") / file.name
        for file in FILES_BY_STAGE[NODES[name].stage]
        if file.bundled is not None
    }
    if name == "capture":  # the fuller table of a decomposition stands in its place
        places[CAPTURED_PROMPTS.name] = folder / (PROMPTS.bundled or "") / PROMPTS.name
    return {file: path for file, path in places.items() if path.is_file()}


def read_json(path: Path) -> Any:
    """Return a JSON file. Raises Corrupt."""
    try:
        if path.stat().st_size > BYTES_MAX:
            raise ValueError(f"it has more than {BYTES_MAX:,} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise Corrupt(f"{path} cannot be read: {error}") from None
