"""``loopscope.open()``: tables for notebooks, read-only, without torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import loopscope
from loopscope.specs.actions import CODE_REVISIONS
from loopscope.specs.artifact_files import Table
from loopscope.specs.artifacts.decomposition import CANDIDATE, FEATURES
from loopscope.specs.artifacts.sensitivity import SENSITIVITY
from loopscope.specs.artifacts.stages import FILES_BY_STAGE
from loopscope.state.db import objects
from loopscope.state.failures import TerminalFailure
from tests.unit.reports_case import KINDS, build

ROOT = Path(__file__).parents[2]
TABLES = {
    "pairs.parquet": lambda e: e.pairs(),
    "features_coarse.parquet": lambda e: e.features(),
    "features_fine.parquet": lambda e: e.features("fine"),
    "steering_scores.parquet": lambda e: e.scores(),
    "steering_samples.parquet": lambda e: e.samples(),
    "arms.parquet": lambda e: e.arms(),
    "prompts.parquet": lambda e: e.prompts(),
    "coarse_summary.parquet": lambda e: e.table("coarse_summary.parquet"),
    "cosine_histogram.parquet": lambda e: e.table("cosine_histogram.parquet"),
}

DECLARED = {
    file.name: file.columns
    for files in FILES_BY_STAGE.values()
    for file in files
    if isinstance(file, Table)
}


@pytest.fixture
def folder(tmp_path):
    state, _ = build(tmp_path)
    state.database.close()
    return state.path


@pytest.fixture
def france(folder):
    return loopscope.open(folder).experiments["france"]


def everything_in(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_declared_columns(france, name):
    frame = TABLES[name](france)
    declared = DECLARED.get(name, (*FEATURES.columns, CANDIDATE))
    always = [column.name for column in declared if not column.where]
    known = {column.name for column in declared}
    assert len(frame) > 0
    assert set(always) <= set(frame.columns) <= known


def test_the_pairs_are_those_of_the_artifact(france):
    pairs = france.pairs()
    assert {"coarse", "fine", "cosine", "correlation", "reading"} <= set(pairs.columns)
    assert pairs["coarse"].isin(france.features("coarse")["latent"]).all()


def test_candidates_are_marked_as_in_the_bundle(france):
    marked = france.features("coarse").query("candidate")["latent"].tolist()
    summary = france._view.stage("coarse").record.status.summary["candidates"]
    assert marked and set(marked) == set(summary)


def test_a_changed_frame_does_not_change_the_next(france):
    first = france.pairs()
    first["cosine"] = 0
    assert (france.pairs()["cosine"] != 0).any()


def test_the_experiments_are_a_mapping_and_a_table(folder):
    state = loopscope.open(str(folder))
    assert list(state.experiments) == ["france"] and len(state.experiments) == 1
    table = state.experiments.table()
    assert bool(table.loc["france", "ready"]) and table.loc["france", "mapping"] == "Ready"
    assert "france" in repr(state.experiments) and "ready" in repr(state.experiments["france"])
    assert len(loopscope.open(folder, namespace="other").experiments.table()) == 0


def test_status_spec_and_artifacts_are_those_that_get_prints(france):
    assert france.ready and france.status["conditions"][0]["type"] == "Ready"
    assert france.spec["hook"] == "blocks.12.hook_resid_post"
    france.spec["hook"] = "a notebook's own"
    assert france.spec["hook"] == "blocks.12.hook_resid_post"
    artifacts = france.artifacts
    assert list(artifacts) == list(KINDS)
    mapping = artifacts["mapping"]
    assert (mapping.folder / "pairs.parquet").is_file() and "pairs.parquet" in mapping.files
    assert mapping.manifest["contentDigest"] == mapping.content_digest
    assert france.gate()["verdict"] and france.verdict()["verdict"]
    looks = france.sensitivity()
    assert list(looks) == [column.name for column in SENSITIVITY.columns]
    assert looks["verdict"].iloc[0] == france.verdict()["verdict"]
    assert france.confirmation() == "not confirmed: no test split"


def test_a_mapping_of_older_rules_is_not_called_missing(france, monkeypatch):
    monkeypatch.setitem(CODE_REVISIONS, "mapping", 99)
    assert "not available" not in france.confirmation()
    assert france.confirmation().startswith("not confirmed: ")


def test_nothing_in_the_folder_is_changed(folder):
    before = everything_in(folder)
    france = loopscope.open(folder).experiments["france"]
    for table in TABLES.values():
        table(france)
    france.stages(), france.artifacts, france.status
    assert everything_in(folder) == before


def test_news_are_seen_by_the_next_question(tmp_path):
    state, key = build(tmp_path)
    door = loopscope.open(state.path)
    assert len(door.experiments) == 1
    with state.database.write() as connection:
        objects.remove(connection, key, now=0.0)
    assert len(door.experiments) == 0
    state.database.close()


def test_an_unfinished_stage_says_why_its_table_is_not_there(tmp_path):
    state, _ = build(tmp_path, stages=("capture", "coarse", "fine"))
    state.database.close()
    france = loopscope.open(state.path).experiments["france"]
    assert not france.ready and len(france.features("coarse"))
    with pytest.raises(LookupError, match=r"not there yet: mapping .*JobRunning"):
        france.pairs()
    assert france.stages().loc["mapping", "state"] == "Running"


def test_a_damaged_table_is_not_shown(folder, france):
    path = france.artifacts["mapping"].folder / "pairs.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(LookupError, match="ArtifactDamaged"):
        loopscope.open(folder).experiments["france"].pairs()


def test_what_is_not_there_is_told_with_a_suggestion(folder, france, tmp_path):
    with pytest.raises(KeyError, match="did you mean 'france'"):
        loopscope.open(folder).experiments["frnace"]
    with pytest.raises(LookupError, match=r"did you mean 'pairs\.parquet'"):
        france.table("pair.parquet")
    with pytest.raises(ValueError, match="expected 'coarse' or 'fine'"):
        france.features("medium")
    with pytest.raises(FileNotFoundError, match=r"no state folder at .*nowhere"):
        loopscope.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("revision", "reason"), [("0000", "SchemaOutdated"), ("9999", "NewerDatabase")]
)
def test_a_folder_of_another_version_is_refused_and_not_migrated(folder, revision, reason):
    import sqlite3

    with sqlite3.connect(folder / "state.db") as connection:
        connection.execute("update alembic_version set version_num = ?", (revision,))
    connection.close()
    before = everything_in(folder)
    with pytest.raises(TerminalFailure) as refused:
        loopscope.open(folder)
    assert refused.value.reason == reason and everything_in(folder) == before


def run_python(source, folder):
    environment = {**os.environ, "LOOPSCOPE_STATE": str(folder), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, *source]
    return subprocess.run(words, env=environment, capture_output=True, text=True, cwd=ROOT)


def test_torch_is_never_imported_and_the_import_alone_brings_nothing_heavy(folder):
    told = run_python(
        [
            "-c",
            "import sys, loopscope\n"
            "heavy = {'pandas', 'pydantic', 'sqlalchemy'} & set(sys.modules)\n"
            "state = loopscope.open()\n"
            "france = state.experiments['france']\n"
            "france.pairs(), france.features(), france.scores(), france.status, france.artifacts\n"
            "print(sorted(heavy), [m for m in ('torch', 'transformers') if m in sys.modules])",
        ],
        folder,
    )
    assert told.stdout == "[] []\n", told.stderr


def test_the_notebook_runs_from_its_first_cell_to_its_last(folder):
    told = run_python(["examples/notebook.py"], folder)
    assert told.returncode == 0, told.stderr
    for words in ("france", "selectivity", "reading", "GO - ", "multi", "mapping"):
        assert words in told.stdout
