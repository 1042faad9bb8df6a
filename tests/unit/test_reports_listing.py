from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from loopscope.reports.tables.describe import describe_text
from loopscope.reports.tables.listing import listing
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import NODE_NAMES
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import objects
from loopscope.state.records import EventRecord, JobRecord, Progress
from loopscope.views.documents.objects import list_document, object_document
from loopscope.views.documents.queue import job_document
from loopscope.views.jobs import remaining_seconds
from loopscope.views.numbers import MINUS, age
from loopscope.views.stages import by_owner
from tests.unit.reports_case import KINDS, NOW, build

LATER = NOW + 300


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    state, _ = build(tmp_path_factory.mktemp("whole"))
    with state.database.read() as connection:
        return objects.listed(connection)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    state, _ = build(tmp_path_factory.mktemp("half"), stages=("capture", "coarse"))
    with state.database.read() as connection:
        return objects.listed(connection)


def of_kind(records, kind):
    return [record for record in records if record.key.kind == kind]


def table(records, kind, **options):
    shown = listing(kind, of_kind(records, kind), now=LATER, children=by_owner(records), **options)
    return [dict(zip(shown.columns, row, strict=True)) for row in shown.rows]


def test_experiments_are_listed_stage_by_stage(records):
    assert table(records, "Experiment") == [
        {
            "NAME": "france",
            **{name.upper(): "Ready" for name in KINDS},
            "READY": "True",
            "GATE": "GO",
            "VERDICT": "Inconclusive",
            "AGE": "5m",
        }
    ]


def test_a_stage_that_nobody_asks_for_has_a_column_only_in_the_wide_table(records):
    (experiment,) = of_kind(records, "Experiment")
    asks = replace(experiment, spec={**experiment.spec, "damage": {}})
    alone, together = (
        listing("Experiment", given, now=LATER).columns
        for given in ([experiment], [experiment, asks])
    )
    stages = {name.upper() for name in NODE_NAMES}
    assert [c for c in together if c in stages] == [*(c for c in alone if c in stages), "DAMAGE"]
    assert stages <= set(listing("Experiment", [experiment], now=LATER, wide=True).columns)


def test_an_unfinished_experiment_shows_no_gate_and_no_verdict(unfinished):
    (row,) = table(unfinished, "Experiment")
    assert (row["COARSE"], row["FINE"], row["READY"]) == ("Ready", "Running", "False")
    assert (row["GATE"], row["VERDICT"]) == ("-", "-")


def test_an_edited_object_is_unknown_until_it_was_observed(records):
    (experiment,) = of_kind(records, "Experiment")
    shown = listing("Experiment", [replace(experiment, generation=2)], now=LATER)
    assert dict(zip(shown.columns, shown.rows[0], strict=True))["READY"] == "Unknown"


@pytest.mark.parametrize("kind", ["Experiment", "Capture", "Decomposition", "Mapping", "Steering"])
def test_every_kind_has_a_row_per_object_with_all_columns(records, kind):
    for options in ({}, {"wide": True}, {"namespaces": True}):
        rows = table(records, kind, **options)
        assert len(rows) == len(of_kind(records, kind))
        assert all(row["NAME"] and row["READY"] == "True" for row in rows)
        assert ("NAMESPACE" in rows[0]) == ("namespaces" in options)


def test_the_numbers_of_each_stage_are_in_its_row(records):
    (steering,) = table(records, "Steering")
    assert (steering["ESTIMATE"], steering["INTERVAL"]) == ("-0.05", "[-0.25, +0.15]")
    (mapping,) = table(records, "Mapping", wide=True)
    assert (mapping["GATE"], mapping["PASS-OF-ALL"]) == ("GO", "18.8 %")
    assert len(mapping["DIGEST"]) == 12 and mapping["CONFIRMED"] == "not confirmed"
    (experiment,) = table(records, "Experiment", wide=True)
    assert experiment["CONFIRMED"] == "not confirmed"
    coarse, fine = table(records, "Decomposition")
    assert (coarse["LATENTS"], coarse["FVU"], fine["FVU"]) == ("16", "0.240", "-")


def test_an_unknown_kind_is_a_key_error(records):
    with pytest.raises(KeyError):
        listing("Poem", records, now=LATER)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-3, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (305, "5m5s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (27_000, "7h30m"),
        (86_400, "24h"),
        (172_800, "2d"),
        (180_000, "2d2h"),
        (691_200, "8d"),
        (63_072_000, "2y"),
        (63_072_000 + 86_400 * 3, "2y3d"),
        (9 * 31_536_000, "9y"),
    ],
)
def test_ages_read_as_in_kubectl(seconds, expected):
    assert age(seconds) == expected


def test_an_object_becomes_a_document_that_yaml_and_json_can_hold(records):
    (mapping,) = of_kind(records, "Mapping")
    document = object_document(mapping)
    assert yaml.safe_load(yaml.safe_dump(document)) == json.loads(json.dumps(document)) == document
    metadata, status = document["metadata"], document["status"]
    assert (document["kind"], metadata["name"]) == ("Mapping", "france-mapping")
    assert metadata["creationTimestamp"] == "2025-06-15T15:06:40Z"
    assert metadata["ownerReferences"][0]["kind"] == "Experiment"
    assert status["conditions"][0]["lastTransitionTime"] == "2025-06-15T15:08:10Z"
    assert status["observedGeneration"] == metadata["generation"] == 1
    assert len(status["artifact"]["contentDigest"]) == 64
    assert document["spec"]["minCosine"] == 0.3


def test_several_objects_become_a_list(records):
    assert len(list_document(records)["items"]) == len(records)


def a_job(**changes) -> JobRecord:
    values = {
        "id": 4,
        "stage": "capture",
        "digest": "ab" * 32,
        "state": "running",
        "object": Key("Capture", "default", "france-capture"),
        "generation": 1,
        "payload": {},
        "attempts": 0,
        "losses": 0,
        "not_before": NOW,
        "created_at": NOW,
        "started_at": NOW + 1.5,
        **changes,
    }
    return JobRecord(**values)


def test_a_job_becomes_a_document_with_its_progress():
    progress = Progress(4, "Capturing", 100, 400, "prompts", NOW + 2, NOW + 4)
    document = job_document(a_job(), progress)
    wanted = {
        "stage",
        "state",
        "digest",
        "object",
        "attempts",
        "id",
        "createdAt",
        "startedAt",
        "finishedAt",
        "notBefore",
        "worker",
        "reason",
        "message",
        "progress",
    }
    assert wanted <= set(document)
    assert document["object"] == "capture/france-capture"
    assert document["startedAt"] == "2025-06-15T15:06:41.500Z"
    assert document["finishedAt"] is None
    assert document["progress"]["etaSeconds"] == 6.0
    assert job_document(a_job())["progress"] is None


def test_there_is_no_estimate_before_the_first_unit_is_done():
    assert remaining_seconds(Progress(1, "Loading", 0, 10, "files", NOW, NOW + 9)) is None


def test_describe_says_what_lies_within_rounding_of_the_edge_or_that_it_was_not_counted(tmp_path):
    state, _ = build(tmp_path)
    for side, words in (("coarse", "3"), ("fine", "not recorded")):
        with state.database.read() as connection:
            record = objects.get(connection, Key("Decomposition", "default", f"france-{side}"))
        lines = describe_text(record, [], [], None, now=LATER).splitlines()
        (line,) = [line for line in lines if "near_edge:" in line]
        assert line.split(":")[1].strip() == words


def test_describe_rounds_what_was_measured_and_shows_white_space(tmp_path):
    state, key = build(tmp_path, steering_rules={"systemPromptSeparator": "\n"})
    shown = {}
    with state.database.read() as connection:
        for record in objects.owned_by(connection, objects.get(connection, key).uid):
            lines = describe_text(record, [], [], None, now=LATER).splitlines()
            shown |= {name: value.strip() for name, _, value in (s.partition(":") for s in lines)}
    told = {name.strip(): value for name, value in shown.items()}
    assert (told["median_norm"], told["l0"]) == ("13,721.5", "9.500")
    assert told["estimate"] == f"{MINUS}0.050"
    assert told["systemPromptSeparator"] == '"\\n"'
    assert told["minCosine"] == "0.3"


def test_describe_tells_all_about_an_object(tmp_path):
    state, key = build(tmp_path)
    name = Key("Capture", "default", "france-capture")
    with state.database.read() as connection:
        record = objects.get(connection, name)
        artifact = artifact_index.get(connection, record.status.artifact.digest)
        experiment = objects.get(connection, key)
        children = objects.owned_by(connection, experiment.uid)
    seen = EventRecord(name, "Warning", "Lost", "the worker died", 3, NOW, NOW + 240)
    failed = a_job(state="failed", reason="OutOfMemory", message="killed")
    text = describe_text(record, [seen], [failed], artifact, now=LATER)
    for words in (
        "Controlled by:          experiment/france",
        "20 texts",
        "Succeeded",
        "residual.safetensors",
        artifact.content_digest,
        "OutOfMemory: killed",
        "60s (x3 over 5m)",
        "capture is done",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) < 300
    whole = describe_text(experiment, [], [], None, now=LATER, children=children)
    assert "steering/france-steering" in whole
    assert "Events:                 <none>" in whole
