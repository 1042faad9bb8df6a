"""State folders that somebody prepared: nothing outside is read, nothing crashes."""

import json
import os
from dataclasses import replace

import pytest

from loopscope.controller.settings import Settings
from loopscope.reports.bundle import export_bundle
from loopscope.reports.page.html import render_report
from loopscope.specs.canonical import digest as digest_of
from loopscope.state.artifacts.folder_store import FolderStore
from loopscope.state.artifacts.manifests import MANIFEST, content_digest
from loopscope.state.artifacts.store import Corrupt
from loopscope.views.experiment import ExperimentView
from tests.simulated import settled_experiment
from tests.unit.reports_case import build

DIGEST = "d" * 64


@pytest.fixture
def store(tmp_path):
    store = FolderStore(tmp_path / "artifacts")
    staging = store.staging_folder(DIGEST, 1)
    (staging / "x.json").write_text("{}")
    told = {"stage": "mapping", "digest": DIGEST, "metrics": {"n": 1}, "createdAt": 5.0}
    store.publish(staging, store.seal(staging, told))
    return store


def rewrite(store, **changes):
    """Edit the manifest as somebody would who knows its digests."""
    path = store.folder("mapping", DIGEST) / MANIFEST
    manifest = {**json.loads(path.read_text()), **changes}
    if "files" in changes:
        manifest["contentDigest"] = content_digest(manifest["files"])
    rest = {name: value for name, value in manifest.items() if name != "manifestDigest"}
    path.write_text(json.dumps({**rest, "manifestDigest": digest_of(rest)}))


@pytest.mark.parametrize(
    "changes",
    [
        {"createdAt": "today"},
        {"createdAt": True},
        {"createdAt": 1e300},
        {"createdAt": -1},
        {"metrics": None},
        {"metrics": [1]},
        {"files": {"a\0b": {"sha256": "0" * 64, "bytes": 1}}},
        {"files": {"x.json": {"sha256": "0" * 64, "bytes": "1"}}},
        {"files": {"x.json": {"sha256": "0" * 64, "bytes": 1.5}}},
        {"files": {"x" * 300: {"sha256": "0" * 64, "bytes": 1}}},
        {"files": {"a/../../b": {"sha256": "0" * 64, "bytes": 1}}},
        {"files": {"/etc/hostname": {"sha256": "0" * 64, "bytes": 1}}},
        {"files": {"a\nb\x1b[2J": {"sha256": "0" * 64, "bytes": 1}}},
    ],
)
def test_a_manifest_of_wrong_types_or_names_is_corrupt(store, changes):
    rewrite(store, **changes)
    with pytest.raises(Corrupt):
        store.verify(store.record("mapping", DIGEST))


@pytest.mark.parametrize(
    "text", ['{"files": {"a": {"sha256": NaN}}}', '{"a": "\\ud800"}', "9" * 5000]
)
def test_a_manifest_that_cannot_be_hashed_is_corrupt(store, text):
    (store.folder("mapping", DIGEST) / MANIFEST).write_text(text)
    with pytest.raises(Corrupt):
        store.record("mapping", DIGEST)


def test_a_pipe_in_place_of_a_manifest_is_not_waited_for(store):
    manifest = store.folder("mapping", DIGEST) / MANIFEST
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(Corrupt):
        store.record("mapping", DIGEST)


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return ExperimentView.load(*build(tmp_path_factory.mktemp("view")))


def with_file(view, tmp_path, stage_name, file, content):
    """Return the view with a payload file replaced behind the check of its hash."""
    stage = view.stages[stage_name]
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in stage.folder.iterdir():
        (copy / path.name).symlink_to(path)
    (copy / file).unlink()
    (copy / file).write_bytes(content)
    changed = replace(stage, folder=copy, _read={})
    return replace(view, stages={**view.stages, stage_name: changed})


@pytest.mark.parametrize(
    ("stage", "file"),
    [("mapping", "gate.json"), ("mapping", "pairs.parquet"), ("capture", "norms.json")],
)
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b"null", b"{}", b"\xff", b"PAR1PAR1"]
)
def test_a_payload_that_cannot_be_read_is_corrupt_for_report_and_export(
    view, tmp_path, stage, file, content
):
    harmed = with_file(view, tmp_path, stage, file, content)
    with pytest.raises(Corrupt):
        render_report(harmed)
    with pytest.raises(Corrupt):
        export_bundle(harmed, tmp_path / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


def test_a_bundle_does_not_follow_a_link_at_its_destination(view, tmp_path):
    from loopscope.state.failures import TerminalFailure

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("x")
    (tmp_path / "bundle").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TerminalFailure, match="DestinationNotEmpty"):
        export_bundle(view, tmp_path / "bundle")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["precious"]


def test_a_feature_table_is_hashed_before_candidates_are_read_from_it(tmp_path):
    simulation = settled_experiment(tmp_path / "state")
    simulation.settings = Settings(verify_bytes_per_resync=0)
    simulation.restart()
    path = simulation.artifact_folder("france-coarse") / "features.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    assert simulation.settle() == ["decomposition"]
    assert simulation.get("france").ready
