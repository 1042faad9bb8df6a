"""The evidence bundle: spec, manifests, tables and report, readable without Loopscope."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas
import pyarrow
import pyarrow.parquet

from loopscope.reports.crate import OWNER, REGISTER, write_crate
from loopscope.reports.page.html import render_report
from loopscope.reports.page.provenance import spec_yaml
from loopscope.specs.artifact_files import ArtifactFile, Table
from loopscope.specs.artifacts.decomposition import CANDIDATE, FEATURES, PROMPTS, bundled_features
from loopscope.specs.artifacts.robustness import ROBUSTNESS, ROBUSTNESS_TEXTS
from loopscope.specs.artifacts.sensitivity import SENSITIVITY
from loopscope.specs.artifacts.stages import FILES_BY_STAGE
from loopscope.specs.pipeline import PIPELINE, NodeName
from loopscope.specs.registration import RegisterExtract
from loopscope.state import failpoints
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.destinations import check_writable_place, told_of
from loopscope.state.failures import TerminalFailure
from loopscope.state.files import file_sha256, fsync_path
from loopscope.state.records import ArtifactRecord
from loopscope.views.documents.objects import object_document
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.origin import PANDAS_ATTRIBUTES, origin_of
from loopscope.views.owner import owner_json
from loopscope.views.robustness import robustness_of
from loopscope.views.sensitivity.looks import Looks, looks_at


def export_bundle(
    view: ExperimentView,
    destination: Path,
    *,
    allow_partial: bool = False,
    registered: RegisterExtract | None = None,
) -> Path:
    """Write the bundle to ``destination``, all of it or nothing; return the folder.

    ``registered`` is what was written down of the experiment before its outcome existed.
    The bytes are a function of both: exporting twice gives equal files. Raises
    TerminalFailure when the folder exists and is not empty, or when a stage is unfinished and
    ``allow_partial`` is false; Corrupt when an artifact changed since the view was read.
    """
    destination = destination.absolute()
    _check_destination(destination)
    if not allow_partial:
        _check_finished(view)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    with told_of(destination):
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            _fill(view, temporary)
            if registered is not None:
                _write_document(registered, temporary / REGISTER)
            write_crate(view, temporary)
            _make_durable(temporary)
            _move(temporary, destination)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return destination


def _check_destination(destination: Path) -> None:
    if not destination.is_dir():
        check_writable_place(destination)
    if destination.is_dir() and not any(destination.iterdir()):
        return
    if destination.exists() or destination.is_symlink():
        raise TerminalFailure(
            "DestinationNotEmpty",
            f"{destination} exists and is not an empty folder; name a new one, or remove it first",
        )


def _check_finished(view: ExperimentView) -> None:
    problems = [f"{stage.name} ({stage.problem})" for stage in view.unfinished]
    if view.stale:
        problems.insert(0, "the spec was edited and the stages do not yet answer the edit")
    if problems:
        raise TerminalFailure(
            "NotReady",
            f"{view.experiment.key} is not finished: {'; '.join(problems)}; wait until it is "
            "Ready, or export what there is with --allow-partial",
        )


def _fill(view: ExperimentView, folder: Path) -> None:
    (folder / "spec.yaml").write_text(spec_yaml(view), encoding="utf-8")
    looks = looks_at(view)
    (folder / "report.html").write_text(render_report(view, looks=looks), encoding="utf-8")
    static = render_report(view, explorable=False, looks=looks)
    (folder / "report-static.html").write_text(static, encoding="utf-8")
    _write_status(view, folder / "status.json")
    if view.owner is not None:
        _write_document(owner_json(view.owner, view.experiment), folder / OWNER)
    (folder / "manifests").mkdir()
    for stage in view.stages.values():
        if stage.folder is not None:
            source = stage.folder / MANIFEST
            shutil.copyfile(source, folder / "manifests" / f"{stage.name}.json")
    for node in PIPELINE:
        own = [file for file in FILES_BY_STAGE[node.stage] if file is not PROMPTS]
        _copy(view, node.name, own, folder)
    _copy(view, view.prompts.name, (PROMPTS,), folder)
    for side in ("coarse", "fine"):
        _write_features(view, side, folder / bundled_features(side))
    _write_looks(view, looks, folder)


_KINDS = {
    "text": pyarrow.string(),
    "float64": pyarrow.float64(),
    "int64": pyarrow.int64(),
    "bool": pyarrow.bool_(),
}


def _write_looks(view: ExperimentView, looks: Looks, folder: Path) -> None:
    """Write what would have changed the answer; nothing where nothing was steered."""
    if looks.rows:
        _write_computed(view, SENSITIVITY, looks.table(), folder)
    found = robustness_of(view)
    if not found.arms.empty:
        _write_computed(view, ROBUSTNESS, found.arms, folder)
        _write_computed(view, ROBUSTNESS_TEXTS, found.texts, folder)


def _write_computed(
    view: ExperimentView, table: Table, found: pandas.DataFrame, folder: Path
) -> None:
    """Write a table that rests on a steering and that no stage writes."""
    steered = view.stage("steering").artifact
    assert steered is not None, "it was computed from one"
    kinds = [(column.name, _KINDS[column.type]) for column in table.columns]
    written = pyarrow.Table.from_pandas(found, schema=pyarrow.schema(kinds), preserve_index=False)
    origin = json.dumps(origin_of(view.experiment.key, steered), sort_keys=True)
    written = written.replace_schema_metadata({PANDAS_ATTRIBUTES: origin})
    pyarrow.parquet.write_table(written, folder / table.name, compression="zstd")


def _write_status(view: ExperimentView, path: Path) -> None:
    """Write the documents of the objects without their specs, which stand in ``spec.yaml``."""
    records = [view.experiment, *(s.record for s in view.stages.values() if s.record is not None)]
    documents = [object_document(record) for record in records]
    kept = [{k: v for k, v in document.items() if k != "spec"} for document in documents]
    _write_document(kept, path)


def _write_document(document: object, path: Path) -> None:
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def _copy(
    view: ExperimentView, name: NodeName, files: Sequence[ArtifactFile], folder: Path
) -> None:
    """Copy payload files and check the copies; nothing for a stage without an artifact."""
    stage = view.stage(name)
    if stage.artifact is None:
        return
    for file in files:
        can_lack = file.can_lack or not stage.available  # other rules, other files
        if file.bundled is None or (can_lack and file.name not in stage.artifact.files):
            continue
        copy = folder / file.bundled / file.name
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(stage.path(file.name), copy)
        if file_sha256(copy) != stage.artifact.files[file.name].sha256:
            raise Corrupt(f"{name}/{file.name} changed while it was exported")
        if isinstance(file, Table):
            _write_table(view, stage.artifact, file.name, pyarrow.parquet.read_table(copy), copy)


def _write_features(view: ExperimentView, side: Literal["coarse", "fine"], path: Path) -> None:
    """Write a feature table with the column ``candidate``."""
    stage: StageView = view.stage(side)
    if stage.artifact is None:
        return
    table = pyarrow.parquet.read_table(stage.path(FEATURES.name))
    candidates = set(view.candidates(side))
    marks: list[bool] = [latent in candidates for latent in table["latent"].to_pylist()]
    table = table.append_column(CANDIDATE.name, pyarrow.array(marks, pyarrow.bool_()))
    _write_table(view, stage.artifact, FEATURES.name, table, path)


def _write_table(
    view: ExperimentView, artifact: ArtifactRecord, name: str, table: pyarrow.Table, path: Path
) -> None:
    """Write a table that says where it is from, as pandas reads it: which file of which artifact.

    An artifact belongs to any number of experiments, so its own file names none.
    """
    origin = {
        **origin_of(view.experiment.key, artifact, name, table.column_names),
        "file": name,
        "sha256": artifact.files[name].sha256,
    }
    table = table.replace_schema_metadata({PANDAS_ATTRIBUTES: json.dumps(origin, sort_keys=True)})
    pyarrow.parquet.write_table(table, path, compression="zstd")


def _make_durable(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        fsync_path(path)
    fsync_path(folder)


def _move(temporary: Path, destination: Path) -> None:
    failpoints.reach("bundle-rename")
    try:
        temporary.rename(destination)
    except OSError as error:
        raise TerminalFailure(
            "DestinationNotEmpty",
            f"{destination} was filled by someone else meanwhile ({error.strerror}); "
            "name a new folder",
        ) from None
    fsync_path(destination.parent)
