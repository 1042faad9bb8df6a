"""The API read: discovery, objects, lists in pages, tables, events."""

import base64
import json

import pytest

from loopscope.specs.keys import Key
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.pipeline import NODE_NAMES
from loopscope.state.db import objects
from tests.simulated import settled_experiment

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from tests.served import HERE, KINDS, TABLE, served


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return settled_experiment(tmp_path_factory.mktemp("state") / "state")


@pytest.fixture(scope="module")
def api(world, tmp_path_factory):
    with served(world.state, tmp_path_factory.mktemp("folder"), world.clock.now) as running:
        yield running


def names(answer):
    return [item["metadata"]["name"] for item in answer.body["items"]]


# -- discovery ---------------------------------------------------------------------------


def test_a_client_finds_group_version_and_kinds(api):
    assert api("/api").body["versions"] == ["v1"]
    (group,) = api("/apis").body["groups"]
    assert group["preferredVersion"]["groupVersion"] == "loopscope.dev/v1alpha1"
    found = {one["name"]: one for one in api(KINDS).body["resources"]}
    assert found["experiments"]["kind"] == "Experiment"
    assert found["experiments"]["shortNames"] == ["exp"]
    assert found["experiments"]["verbs"] == ["get", "list", "watch"]
    assert "experiments/status" in found and len(found) == 2 * len(SPEC_BY_KIND)


def test_the_version_is_one_that_clients_can_compare(api):
    assert api("/version").body["gitVersion"].startswith("v1.")


def test_every_reference_of_the_schemas_leads_somewhere(api):
    (path,) = api("/openapi/v3").body["paths"].values()
    document = api(path["serverRelativeURL"]).body
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    assert "$defs" not in text and '"const"' not in text and '"null"' not in text
    wanted = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert wanted <= schemas.keys()
    spec = schemas["ExperimentSpec"]["properties"]
    assert spec["hook"]["type"] == "string" and spec["hook"]["description"]
    patches = [one["patch"] for one in document["paths"].values()]
    assert {one["x-kubernetes-group-version-kind"]["kind"] for one in patches} >= {"Experiment"}
    assert all(one["parameters"][0]["name"] == "fieldValidation" for one in patches)


def test_an_unknown_path_and_kind_are_a_status(api):
    for path in ("/nothing", f"{KINDS}/pods", f"{HERE}/experiments/france/scale"):
        answer = api(path)
        assert (answer.code, answer.body["kind"], answer.body["reason"]) == (
            404, "Status", "NotFound",
        )  # fmt: skip


@pytest.mark.parametrize(
    "query",
    [
        "limit=" + "9" * 5000,
        "continue=" + base64.urlsafe_b64encode(b'[Infinity, "a", "b"]').decode(),
        "watch=1&resourceVersion=" + "9" * 5000,
        "watch=1&timeoutSeconds=" + "9" * 5000,
    ],
    ids=lambda query: query[:16],
)
def test_a_number_that_nothing_counts_to_is_a_bad_request(api, query):
    answer = api(f"{HERE}/experiments?{query}")
    assert (answer.code, answer.body["reason"]) == (400, "BadRequest")


# -- objects and lists -------------------------------------------------------------------


def test_an_object_is_what_get_prints_with_a_version_as_text(api, world):
    found = api(f"{HERE}/experiments/france").body
    with world.state.database.read() as connection:
        record = objects.get(connection, Key("Experiment", "default", "france"))
    assert found["metadata"]["resourceVersion"] == str(record.resource_version)
    assert found["metadata"]["uid"] == record.uid
    assert found["spec"] == record.spec
    assert found["status"]["conditions"][0]["type"] == "Ready"
    assert api(f"{HERE}/experiments/france/status").body == found


def test_an_object_that_is_not_there_is_not_found_in_the_words_of_kubernetes(api):
    answer = api(f"{HERE}/experiments/atlantis")
    assert answer.code == 404
    assert answer.body["message"] == 'experiments.loopscope.dev "atlantis" not found'
    assert api(f"{KINDS}/namespaces/elsewhere/experiments").body["items"] == []


def test_a_list_has_all_namespaces_or_one_and_the_newest_version(api, world):
    assert names(api(f"{KINDS}/decompositions")) == ["france-coarse", "france-fine"]
    answer = api(f"{HERE}/decompositions")
    assert names(answer) == ["france-coarse", "france-fine"]
    assert answer.body["kind"] == "DecompositionList"
    with world.state.database.read() as connection:
        newest = objects.resource_version(connection)
    assert answer.body["metadata"] == {"resourceVersion": str(newest)}


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("fieldSelector=metadata.name%3Dfrance-fine", ["france-fine"]),
        ("fieldSelector=metadata.name!%3Dfrance-fine", ["france-coarse"]),
        ("fieldSelector=status.artifact.stage%3Dcapture", []),
        ("fieldSelector=status.artifact.stage%3Ddecomposition&limit=1", ["france-coarse"]),
        ("labelSelector=!stage", ["france-coarse", "france-fine"]),
        ("labelSelector=stage%20in%20(a)", []),
    ],
)
def test_labels_and_fields_choose(api, selector, found):
    assert names(api(f"{HERE}/decompositions?{selector}")) == found


@pytest.mark.parametrize(
    "query",
    ["labelSelector=a%3D%3D%3Db", "fieldSelector=nothing", "fieldSelector=kind%3Da",
     "fieldSelector=status.ready%3DTrue", "fieldSelector=metadata.nmae%3Da", "limit=-1",
     "continue=x", "continue=WzFd", "watch=1&resourceVersion=x", "watch=1&timeoutSeconds=x"],
)  # fmt: skip
def test_a_query_that_means_nothing_is_refused(api, query):
    answer = api(f"{HERE}/decompositions?{query}")
    assert (answer.code, answer.body["reason"]) == (400, "BadRequest")
    assert answer.body["message"]


def test_pages_follow_one_another_with_the_version_of_the_first(tmp_path, world):
    cells = {f"cell-{number:03}" for number in range(7)}
    with world.state.database.write() as connection:
        for name in cells:
            objects.apply(connection, Key("Mapping", "many", name), {"topK": 1}, now=1.0)
    with served(world.state, tmp_path, world.clock.now) as api:
        first = api(f"{KINDS}/namespaces/many/mappings?limit=3")
        version = first.body["metadata"]["resourceVersion"]
        with world.state.database.write() as connection:
            objects.remove(connection, Key("Mapping", "many", "cell-006"), now=1.0)
        seen, page = names(first), first
        while token := page.body["metadata"].get("continue"):
            page = api(f"{KINDS}/namespaces/many/mappings?limit=3&continue={token}")
            assert page.body["metadata"]["resourceVersion"] == version
            seen += names(page)
        assert seen == sorted(cells - {"cell-006"})
        watch = api.watch(
            f"{KINDS}/namespaces/many/mappings?watch=1&resourceVersion={version}&timeoutSeconds=1"
        )
        assert [(e["type"], e["object"]["metadata"]["name"]) for e in watch.rest()] == [
            ("DELETED", "cell-006")
        ]


def test_a_page_that_comes_after_the_change_log_moved_on_is_expired(tmp_path, world, monkeypatch):
    with served(world.state, tmp_path, world.clock.now) as api:
        token = api(f"{HERE}/decompositions?limit=1").body["metadata"]["continue"]
        monkeypatch.setattr("loopscope.state.db.objects.CHANGES_KEPT", 1)
        with world.state.database.write() as connection:
            for number in range(150):
                key = Key("Mapping", "moves", "on")
                objects.apply(connection, key, {"topK": number}, now=1.0)
        answer = api(f"{HERE}/decompositions?limit=1&continue={token}")
        assert (answer.code, answer.body["reason"]) == (410, "Expired")


# -- tables ------------------------------------------------------------------------------


def test_a_table_has_the_columns_and_cells_of_get(api):
    table = api(f"{HERE}/experiments", Accept=TABLE).body
    columns = [one["name"] for one in table["columnDefinitions"] if one["priority"] == 0]
    asked = ["Capture", "Coarse", "Fine", "Mapping", "Steering"]
    assert columns == ["Name", *asked, "Ready", "Gate", "Verdict", "Age"]
    wide = [one["name"] for one in table["columnDefinitions"] if one["priority"] == 1]
    unasked = [name.capitalize() for name in NODE_NAMES if name.capitalize() not in asked]
    assert wide == [*unasked, "Reason", "Confirmed", "Model", "Hook", "Generation"]
    (row,) = table["rows"]
    names = [one["name"] for one in table["columnDefinitions"]]
    cells = dict(zip(names, row["cells"], strict=True))
    assert (cells["Name"], cells["Capture"], cells["Ready"]) == ("france", "Ready", "True")
    assert (cells["Gate"], cells["Verdict"]) == ("GO", "Supported")
    assert row["object"]["kind"] == "PartialObjectMetadata" and "spec" not in row["object"]


def test_a_row_holds_the_whole_object_or_none_if_asked(api):
    path = f"{HERE}/experiments/france?includeObject="
    assert "spec" in api(f"{path}Object", Accept=TABLE).body["rows"][0]["object"]
    assert "object" not in api(f"{path}None", Accept=TABLE).body["rows"][0]
    assert api(f"{path}All", Accept=TABLE).code == 400


def test_a_client_that_takes_no_json_is_not_served(api):
    answer = api(f"{HERE}/experiments", Accept="application/vnd.kubernetes.protobuf")
    assert (answer.code, answer.body["reason"]) == (406, "NotAcceptable")


# -- core --------------------------------------------------------------------------------


def test_namespaces_are_those_that_hold_objects(api):
    assert "default" in names(api("/api/v1/namespaces"))
    assert api("/api/v1/namespaces/default").body["status"]["phase"] == "Active"
    assert api("/api/v1/namespaces/nowhere").code == 404


def test_events_are_about_objects_and_chosen_by_field(api, world):
    everything = api("/api/v1/events").body["items"]
    assert {"reason", "message", "count", "involvedObject", "type"} <= everything[0].keys()
    path = "/api/v1/namespaces/default/events"
    chosen = api(f"{path}?fieldSelector=involvedObject.name%3Dfrance-fine").body["items"]
    assert 0 < len(chosen) < len(everything)
    assert {one["involvedObject"]["kind"] for one in chosen} == {"Decomposition"}
    name = chosen[0]["metadata"]["name"]
    assert api(f"{path}/{name}").body["message"] == chosen[0]["message"]
    assert api(f"{path}/none").code == 404
    table = api(path, Accept=TABLE).body
    assert [one["name"] for one in table["columnDefinitions"]][:2] == ["Last seen", "Type"]


def test_namespaces_and_events_are_watched_from_the_version_of_their_list(api, world):
    listed = api("/api/v1/namespaces").body
    version = listed["metadata"]["resourceVersion"]
    watch = api.watch("/api/v1/namespaces?watch=1&timeoutSeconds=30")
    assert watch.next()["type"] == "ADDED"
    later = api.watch(f"/api/v1/namespaces?watch=1&timeoutSeconds=30&resourceVersion={version}")
    rows = api.watch("/api/v1/events?watch=1&timeoutSeconds=1", TABLE)
    assert rows.next()["object"]["kind"] == "Table"
    world.clock.advance(10.0)
    with world.state.database.write() as connection:
        key = Key("Mapping", "newcomer", "m")
        objects.apply(connection, key, {"topK": 1}, now=world.clock.now())
    assert later.next()["object"]["metadata"]["name"] == "newcomer"
    with world.state.database.write() as connection:
        objects.remove(connection, key, now=world.clock.now())
    gone = later.next()
    assert (gone["type"], gone["object"]["metadata"]["name"]) == ("DELETED", "newcomer")
    for one in (watch, later, rows):
        one.close()


def test_more_watches_of_namespaces_than_allowed_are_refused(api, monkeypatch):
    monkeypatch.setattr("loopscope.server.core_watching.WATCHES_MAX", 0)
    assert api("/api/v1/namespaces?watch=1").code == 429
    assert api("/api/v1/events?watch=1&sendInitialEvents=true").code == 422
