from __future__ import annotations

import json

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file

from loopscope.reports.bundle import export_bundle
from loopscope.specs.artifact_files import Table
from loopscope.specs.artifacts.capture import NORMS, TOKENS
from loopscope.specs.artifacts.decomposition import CANDIDATE, FEATURES, bundled_features
from loopscope.specs.artifacts.sensitivity import SENSITIVITY
from loopscope.specs.artifacts.stages import FILES_BY_STAGE
from loopscope.specs.artifacts.steering import VERDICT
from loopscope.specs.kinds.experiment import ExperimentSpec
from loopscope.specs.pipeline import NODES
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.failures import TerminalFailure
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.worker.stages.tables import ARROW_TYPES, check_columns
from tests.hand_built import artifact, stored
from tests.unit.reports_case import KINDS, OPTIONAL, build
from tests.unit.reports_payloads import HOSTILE, Payloads

WHOLE = dict.fromkeys(OPTIONAL, True)
OUTSIDE_ARTIFACTS = {
    "spec.yaml", "status.json", "report.html", "report-static.html", "citation.txt",
    "ro-crate-metadata.json", "sensitivity.parquet",
    "features_coarse.parquet", "features_fine.parquet",
    *(f"manifests/{name}.json" for name in KINDS | OPTIONAL),
}  # fmt: skip
BUNDLED = {
    f"{file.bundled}/{file.name}".lstrip("/"): file
    for stage in sorted({NODES[name].stage for name in KINDS | OPTIONAL})
    for file in FILES_BY_STAGE[stage]
    if file.bundled is not None
}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return build(tmp_path_factory.mktemp("whole"), **WHOLE)


@pytest.fixture(scope="module")
def bundle(case, tmp_path_factory):
    return export_bundle(ExperimentView.load(*case), tmp_path_factory.mktemp("out") / "bundle")


def files_in(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_the_bundle_holds_the_files_that_are_declared_for_it(bundle):
    found = files_in(bundle)
    assert found <= OUTSIDE_ARTIFACTS | set(BUNDLED)
    always = {path for path, file in BUNDLED.items() if not file.can_lack}
    assert found >= OUTSIDE_ARTIFACTS | always


def test_what_an_artifact_need_not_hold_is_in_the_bundle_where_it_does(tmp_path, monkeypatch):
    write = Payloads.write

    def with_everything(payloads, stage, out):
        metrics = write(payloads, stage, out)
        name = "decomposition" if stage in ("coarse", "fine") else stage
        for file in FILES_BY_STAGE[name]:
            if (out / file.name).exists():
                continue
            if isinstance(file, Table):
                empty = {c.name: pa.array([], ARROW_TYPES[c.type]) for c in file.columns}
                pq.write_table(pa.table(empty), out / file.name)
            else:
                shown = '{"prompts": []}'  # what the report reads
                (out / file.name).write_text(shown if file is TOKENS else "it is there")
        return metrics

    monkeypatch.setattr(Payloads, "write", with_everything)
    bundle = export_bundle(ExperimentView.load(*build(tmp_path, **WHOLE)), tmp_path / "bundle")
    assert files_in(bundle) == OUTSIDE_ARTIFACTS | set(BUNDLED)


def test_what_would_have_changed_the_answer_stands_there_and_says_where_it_comes_from(case, bundle):
    check_columns(SENSITIVITY, pq.read_table(bundle / SENSITIVITY.name))
    found = pandas.read_parquet(bundle / SENSITIVITY.name)
    view = ExperimentView.load(*case)
    steered = view.stage("steering")
    assert steered.artifact is not None
    assert (found.attrs["stage"], found.attrs["digest"]) == ("steering", steered.artifact.digest)
    assert found["verdict"].iloc[0] == steered.document(VERDICT)["verdict"]


@pytest.mark.parametrize("path", [p for p, file in BUNDLED.items() if isinstance(file, Table)])
def test_a_table_of_the_bundle_has_the_declared_columns(bundle, path):
    if (bundle / path).exists() or not BUNDLED[path].can_lack:
        check_columns(BUNDLED[path], pq.read_table(bundle / path))


@pytest.mark.parametrize("side", ["coarse", "fine"])
def test_a_feature_table_of_the_bundle_says_last_which_latents_are_candidates(bundle, side):
    table = pq.read_table(bundle / bundled_features(side))
    check_columns(FEATURES, table.drop_columns([CANDIDATE.name]))
    assert table.column_names[-1] == CANDIDATE.name


@pytest.mark.parametrize(
    "path",
    [
        *(p for p, file in BUNDLED.items() if isinstance(file, Table)),
        *(bundled_features(side) for side in ("coarse", "fine")),
    ],
)
def test_every_table_of_the_bundle_says_where_it_comes_from(case, bundle, path):
    if not (bundle / path).exists():
        assert BUNDLED[path].can_lack
        return
    view = ExperimentView.load(*case)
    said = pandas.read_parquet(bundle / path).attrs
    assert (said["experiment"], said["namespace"]) == (view.name, "default")
    own = [s for s in view.stages.values() if s.artifact and s.artifact.digest == said["digest"]]
    assert own[0].artifact.stage == said["stage"]
    assert own[0].artifact.files[said["file"]].sha256 == said["sha256"]
    (declared,) = (one for one in FILES_BY_STAGE[said["stage"]] if one.name == said["file"])
    there = set(pq.read_schema(bundle / path).names)
    units = {column.name: column.unit for column in declared.columns if column.unit}
    assert said["units"] == {name: unit for name, unit in units.items() if name in there}


def test_the_bundle_holds_the_documents_of_the_contract(bundle):
    gate = json.loads((bundle / "gate.json").read_text())
    assert {"verdict", "rule", "anchors", "share_of_all", "share_of_firing"} <= set(gate)
    assert {"coarse", "children"} <= set(gate["anchors"][0])
    verdict = json.loads((bundle / "verdict.json").read_text())
    wanted = {"verdict", "contrast", "estimate", "low", "high", "n", "arm_cosines"}
    assert wanted <= set(verdict)
    assert "residual" in load_file(bundle / "capture" / "residual.safetensors")
    assert (bundle / "capture" / "norms.json").exists()
    assert (bundle / "report.html").read_text().lstrip().startswith("<!doctype html>")


def test_candidates_are_those_of_the_status(case, bundle):
    view = ExperimentView.load(*case)
    for side in ("coarse", "fine"):
        table = pq.read_table(bundle / f"features_{side}.parquet")
        marked = table.filter(table["candidate"])["latent"].to_pylist()
        assert sorted(view.candidates(side)) == marked
        assert marked
        assert table.num_rows == view.stage(side).metrics["d_sae"]


def test_candidates_not_in_the_status_follow_from_the_selection(case):
    view = ExperimentView.load(*case)
    recorded = view.candidates("coarse")
    view.stage("coarse").record.status.summary.pop("candidates")
    assert view.candidates("coarse") == recorded


def test_each_manifest_lists_the_hashes_of_the_files(case, bundle):
    view = ExperimentView.load(*case)
    for stage in view.stages.values():
        manifest = json.loads((bundle / "manifests" / f"{stage.name}.json").read_text())
        assert manifest["contentDigest"] == stage.artifact.content_digest
        assert manifest["files"]


def test_the_exported_spec_can_be_applied_again(case, bundle):
    document = yaml.safe_load((bundle / "spec.yaml").read_text())
    assert document["kind"] == "Experiment"
    assert document["spec"]["prompts"]["target"]["texts"][0] == HOSTILE
    again = ExperimentSpec.model_validate(document["spec"]).canonical()
    assert again == ExperimentView.load(*case).experiment.spec


def test_exporting_twice_gives_the_same_bytes(case, bundle, tmp_path):
    again = export_bundle(ExperimentView.load(*case), tmp_path / "again")
    files = [p.relative_to(bundle) for p in sorted(bundle.rglob("*")) if p.is_file()]
    assert files == [p.relative_to(again) for p in sorted(again.rglob("*")) if p.is_file()]
    assert all((bundle / f).read_bytes() == (again / f).read_bytes() for f in files)


def test_an_empty_folder_is_filled(case, tmp_path):
    (tmp_path / "empty").mkdir()
    export_bundle(ExperimentView.load(*case), tmp_path / "empty")
    assert (tmp_path / "empty" / "gate.json").exists()


def test_a_folder_with_something_in_it_is_refused_and_untouched(case, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(TerminalFailure, match="not an empty folder"):
        export_bundle(ExperimentView.load(*case), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]


def test_a_file_in_the_way_is_refused(case, tmp_path):
    (tmp_path / "bundle").write_text("mine")
    with pytest.raises(TerminalFailure, match="not an empty folder"):
        export_bundle(ExperimentView.load(*case), tmp_path / "bundle")


def test_an_unfinished_experiment_is_refused_and_leaves_nothing(tmp_path):
    state, key = build(tmp_path, stages=("capture", "coarse"))
    view = ExperimentView.load(state, key)
    with pytest.raises(TerminalFailure, match=r"fine \(JobRunning: fine job 4 is running\)"):
        export_bundle(view, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_partial_export_holds_what_there_is(tmp_path):
    state, key = build(tmp_path, stages=("capture", "coarse"))
    bundle = export_bundle(ExperimentView.load(state, key), tmp_path / "bundle", allow_partial=True)
    names = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert "features_coarse.parquet" in names
    assert "manifests/capture.json" in names
    assert not names & {"features_fine.parquet", "gate.json", "verdict.json", "arms.parquet"}
    status = {s["metadata"]["name"]: s for s in json.loads((bundle / "status.json").read_text())}
    assert status["france-fine"]["status"]["conditions"][0]["reason"] == "JobRunning"


def test_an_artifact_that_changes_under_the_export_leaves_no_bundle(tmp_path):
    state, key = build(tmp_path)
    view = ExperimentView.load(state, key)
    path = view.stage("capture").path("norms.json")
    view.stage("capture").document(NORMS)
    path.write_text(path.read_text() + " ")
    with pytest.raises(Corrupt, match=r"norms\.json changed"):
        export_bundle(view, tmp_path / "bundle")
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize(
    ("files", "knows"), [({"prompts_parquet": "p"}, "coarse"), ({}, "capture")]
)
def test_prompts_are_read_where_their_split_stands_also_in_artifacts_of_earlier_versions(
    files, knows
):
    stages = {
        "capture": StageView("capture", None, artifact("capture", "c", prompts_parquet="q")),
        "coarse": StageView("coarse", None, artifact("decomposition", "d", **files)),
    }
    view = ExperimentView(stored("Experiment", "france", {}), stages)
    assert view.prompts.name == knows
