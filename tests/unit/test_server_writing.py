"""The API written to: the same applies, checks and deletions as those of commands."""

import json

import pytest
import yaml

from loopscope.specs.keys import Key
from loopscope.state.db import applied, events, objects
from loopscope.state.folder import open_state
from tests.unit.test_server_watching import short

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from tests.served import HERE, served

EXPERIMENTS = f"{HERE}/experiments"
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"


@pytest.fixture
def state(tmp_path):
    return open_state(tmp_path / "state")


@pytest.fixture
def document(experiment):
    """The experiment x, as someone would send it from the folder of the test."""
    return json.loads(json.dumps(yaml.safe_load(experiment().read_text())))


@pytest.fixture
def api(state, tmp_path):
    folder = tmp_path / "specs"
    with served(
        state, folder, lambda: 2.0, poll_seconds=0.01, writable=True, root=tmp_path
    ) as running:
        yield running


def apply(api, document, manager="kubectl", query=""):
    name = document["metadata"]["name"]
    path = f"{EXPERIMENTS}/{name}?fieldManager={manager}{query}"
    return api(path, "PATCH", document, kind=APPLY)


def stored(state, name="x"):
    with state.database.read() as connection:
        return objects.get(connection, Key("Experiment", "default", name))


def causes(answer):
    return {one["field"]: one["message"] for one in answer.body["details"]["causes"]}


# -- create ------------------------------------------------------------------------------


def test_an_object_is_created_once(api, state, document):
    answer = api(EXPERIMENTS, "POST", document)
    assert answer.code == 201
    assert answer.body["metadata"]["uid"] == stored(state).uid
    assert answer.body["spec"]["prompts"]["target"]["texts"][0] == "Paris is"
    again = api(EXPERIMENTS, "POST", document)
    assert (again.code, again.body["reason"]) == (409, "AlreadyExists")
    assert again.body["message"] == 'experiments.loopscope.dev "x" already exists'


def test_a_name_is_made_from_a_prefix(api, document):
    document["metadata"] = {"generateName": "x-"}
    names = {api(EXPERIMENTS, "POST", document).body["metadata"]["name"] for _ in range(2)}
    assert len(names) == 2 and all(name.startswith("x-") for name in names)


def test_what_the_command_refuses_is_refused_in_its_words_by_field(api, state, document):
    document["spec"]["hok"] = 1
    document["spec"]["dictionaries"]["fine"] = {"path": "../wide"}
    answer = api(EXPERIMENTS, "POST", document)
    assert (answer.code, answer.body["reason"]) == (422, "Invalid")
    assert "unknown field" in causes(answer)["spec.hok"]
    del document["spec"]["hok"]
    answer = apply(api, document)
    assert answer.code == 422 and "12" in causes(answer)["spec.dictionaries.fine.path"]
    assert stored(state) is None


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        ({"kind": "Capture"}, "kind"),
        ({"apiVersion": "v1"}, "apiVersion"),
        ({"metadata": {"name": "x", "namespace": "other"}}, "metadata.namespace"),
        ({"metadata": []}, "metadata"),
    ],
)
def test_a_body_that_contradicts_its_path_is_refused(api, document, edit, field):
    answer = api(EXPERIMENTS, "POST", {**document, **edit})
    assert (answer.code, answer.body["reason"]) == (400, "BadRequest")
    assert answer.body["message"].startswith(field)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 100_000, b"\xff"]
)
def test_a_body_that_is_no_object_is_refused(api, body):
    for method, path in (("POST", EXPERIMENTS), ("PUT", f"{EXPERIMENTS}/x")):
        answer = api(path, method, body)
        assert (answer.code, answer.body["kind"]) == (400, "Status")


def test_a_text_file_outside_the_root_is_not_read(api, document):
    document["spec"]["prompts"]["target"] = {"file": "/etc/hostname"}
    answer = api(EXPERIMENTS, "POST", document)
    assert answer.code == 422
    assert "lies outside" in answer.body["message"]


# -- server-side apply -------------------------------------------------------------------


def test_an_apply_creates_changes_and_leaves_alone(api, state, document):
    assert apply(api, document).code == 201
    first = stored(state)
    assert apply(api, document).code == 200 and stored(state) == first
    document["spec"]["maxTokens"] = 64
    answer = apply(api, document)
    assert answer.code == 200 and answer.body["metadata"]["generation"] == 2
    (managed,) = answer.body["metadata"]["managedFields"]
    assert (managed["manager"], managed["operation"]) == ("kubectl", "Apply")
    assert managed["fieldsV1"]["f:spec"]["f:maxTokens"] == {}


def test_another_manager_conflicts_until_it_forces(api, state, document):
    apply(api, document)
    document["spec"]["maxTokens"] = 64
    answer = apply(api, document, "other")
    assert (answer.code, answer.body["reason"]) == (409, "Conflict")
    assert "field manager kubectl" in answer.body["message"]
    (cause,) = answer.body["details"]["causes"]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".spec.maxTokens")
    assert stored(state).spec["maxTokens"] == 128
    forced = apply(api, document, "other", "&force=true")
    assert forced.code == 200 and stored(state).spec["maxTokens"] == 64
    assert forced.body["metadata"]["managedFields"][0]["manager"] == "other"


def test_an_apply_of_the_command_and_one_of_the_api_conflict_alike(
    api, document, loopscope, experiment
):
    assert loopscope("apply", "-f", experiment())[0] == 0
    document["spec"]["maxTokens"] = 64
    answer = apply(api, document)
    assert answer.code == 409 and "an apply without --apply-set" in answer.body["message"]
    assert apply(api, document, query="&force=true").code == 200
    code, _, said = loopscope("apply", "-f", experiment())
    assert code == 1 and "field manager kubectl" in said


def test_an_apply_of_metadata_alone_keeps_the_spec(api, state, document):
    apply(api, document)
    patch = {"metadata": {"name": "x", "labels": {"colour": "red"}}}
    assert apply(api, patch).code == 200
    assert stored(state).labels == {"colour": "red"}
    assert stored(state).generation == 1
    assert apply(api, {"metadata": {"name": "y"}}).code == 404


def test_an_apply_may_come_as_yaml(api, document):
    text = yaml.safe_dump(document).encode()
    assert api(f"{EXPERIMENTS}/x?fieldManager=m", "PATCH", text, kind=APPLY).code == 201


# -- update and patch --------------------------------------------------------------------


def test_a_merge_patch_changes_what_it_names(api, state, document):
    apply(api, document)
    patch = {"metadata": {"labels": {"colour": "red"}}, "spec": {"maxTokens": 64}}
    assert api(f"{EXPERIMENTS}/x", "PATCH", patch, kind=MERGE).code == 200
    assert (stored(state).labels, stored(state).spec["maxTokens"]) == ({"colour": "red"}, 64)
    patch = {"metadata": {"labels": {"colour": None}}}
    assert api(f"{EXPERIMENTS}/x", "PATCH", patch, kind=MERGE).code == 200
    assert stored(state).labels == {} and stored(state).generation == 2


def test_an_edit_stays_when_the_file_is_applied_again(api, state, loopscope, experiment):
    loopscope("apply", "-f", experiment())
    source = stored(state).annotations
    api(f"{EXPERIMENTS}/x", "PATCH", {"spec": {"maxTokens": 64}}, kind=MERGE)
    assert stored(state).annotations == source
    assert loopscope("apply", "-f", experiment(text=lambda text: text + "\n"))[0] == 0
    assert stored(state).spec["maxTokens"] == 64
    with state.database.read() as connection:
        assert applied.get(connection, stored(state).key, stored(state).uid).manager == "loopscope"


def test_an_update_needs_the_version_that_was_read(api, state, document):
    read = api(EXPERIMENTS, "POST", document).body
    read["spec"]["maxTokens"] = 64
    without = {**read, "metadata": {"name": "x"}}
    assert "metadata.resourceVersion" in causes(api(f"{EXPERIMENTS}/x", "PUT", without))
    assert api(f"{EXPERIMENTS}/x", "PUT", read).body["spec"]["maxTokens"] == 64
    read["spec"]["maxTokens"] = 32
    answer = api(f"{EXPERIMENTS}/x", "PUT", read)
    assert (answer.code, answer.body["reason"]) == (409, "Conflict")
    assert "the object has been modified" in answer.body["message"]
    assert stored(state).spec["maxTokens"] == 64
    patch = {"metadata": {"resourceVersion": "1"}, "spec": {"maxTokens": 32}}
    assert api(f"{EXPERIMENTS}/x", "PATCH", patch, kind=MERGE).code == 409
    assert api(f"{EXPERIMENTS}/y", "PUT", read).code == 404
    fresh = api(f"{EXPERIMENTS}/x").body
    fresh["metadata"]["name"] = "y"
    assert api(f"{EXPERIMENTS}/x", "PUT", fresh).code == 400


def test_an_edit_of_a_file_whose_texts_stay_is_refused(api, document):
    apply(api, document)
    patch = {"spec": {"prompts": {"target": {"file": "../neutral.txt"}}}}
    answer = api(f"{EXPERIMENTS}/x", "PATCH", patch, kind=MERGE)
    assert answer.code == 422 and "remove texts" in causes(answer)["spec.prompts.target.file"]


def test_finalizers_are_not_taken_and_dropped(api, document):
    apply(api, document)
    patch = {"metadata": {"finalizers": ["example.org/x"]}}
    answer = api(f"{EXPERIMENTS}/x", "PATCH", patch, kind=MERGE)
    assert answer.code == 422 and "metadata.finalizers" in causes(answer)


def test_other_patches_are_named_as_what_they_are(api, document):
    apply(api, document)
    for kind in ("application/json-patch+json", "application/strategic-merge-patch+json"):
        answer = api(f"{EXPERIMENTS}/x", "PATCH", {}, kind=kind)
        assert answer.code == 415 and "--type=merge" in answer.body["message"]


def test_a_status_is_not_written(api, document):
    apply(api, document)
    answer = api(f"{EXPERIMENTS}/x/status", "PATCH", {"status": {}}, kind=MERGE)
    assert answer.code == 405


# -- dry run -----------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_and_stores_nothing(api, state, document):
    answer = apply(api, document, query="&dryRun=All")
    assert answer.code == 201 and stored(state) is None
    apply(api, document)
    before = stored(state)
    document["spec"]["maxTokens"] = 64
    answer = apply(api, document, query="&dryRun=All")
    assert (answer.body["spec"]["maxTokens"], answer.body["metadata"]["generation"]) == (64, 2)
    assert apply(api, document, "other", "&dryRun=All").code == 409
    assert api(f"{EXPERIMENTS}/x?dryRun=All", "DELETE").code == 200
    assert api(f"{EXPERIMENTS}/x", "DELETE", {"dryRun": ["All"]}).code == 200
    assert stored(state) == before
    assert apply(api, document, query="&dryRun=Some").code == 400


def test_a_dry_run_foresees_that_finished_work_would_be_discarded(
    api, state, document, monkeypatch
):
    apply(api, document)
    before = stored(state)
    document["spec"]["maxTokens"] = 64
    monkeypatch.setattr("loopscope.controller.plan.requests.DISCARD_SECONDS_MAX", -1.0)
    dry, real = apply(api, document, query="&dryRun=All"), apply(api, document)
    assert (dry.code, dry.body["reason"]) == (409, "ConfirmationNeeded")
    assert dry.body == real.body and stored(state) == before
    assert apply(api, document, query="&dryRun=All&confirm=true").code == 200
    assert stored(state) == before


# -- delete ------------------------------------------------------------------------------


def test_what_an_object_owns_goes_with_it(api, state, document):
    uid = apply(api, document).body["metadata"]["uid"]
    with state.database.write() as connection:
        owner = objects.get(connection, Key("Experiment", "default", "x"))
        objects.apply(connection, Key("Mapping", "default", "x-mapping"), {}, owner=owner, now=1.0)
        start = objects.resource_version(connection)
    refused = api(f"{HERE}/mappings/x-mapping", "DELETE")
    assert (refused.code, refused.body["reason"]) == (409, "OwnedByAnother")
    assert "would come back" in refused.body["message"]
    watch = api.watch(f"{HERE}/mappings?watch=1&resourceVersion={start}")
    answer = api(f"{EXPERIMENTS}/x", "DELETE", {"propagationPolicy": "Foreground"})
    assert (answer.body["status"], answer.body["details"]["uid"]) == ("Success", uid)
    assert short(watch.next()) == ("DELETED", "x-mapping")
    watch.close()
    assert api(f"{EXPERIMENTS}/x", "DELETE").code == 404


def test_what_is_protected_or_should_be_orphaned_stays(api, state, document):
    document["metadata"]["annotations"] = {"loopscope.dev/protect": "true"}
    apply(api, document)
    for query in ("", "?dryRun=All"):
        answer = api(f"{EXPERIMENTS}/x{query}", "DELETE")
        assert (answer.code, answer.body["reason"]) == (409, "Protected")
    assert api(f"{EXPERIMENTS}/x?propagationPolicy=Orphan", "DELETE").code == 422
    assert stored(state) is not None


def test_a_deletion_may_name_what_it_means(api, state, document):
    uid = apply(api, document).body["metadata"]["uid"]
    other = {"preconditions": {"uid": "another"}}
    assert api(f"{EXPERIMENTS}/x", "DELETE", other).code == 409
    unread = api(f"{EXPERIMENTS}/x", "DELETE", {"preconditions": uid})
    assert (unread.code, stored(state).uid) == (400, uid)
    assert api(f"{EXPERIMENTS}/x", "DELETE", {"preconditions": {"uid": uid}}).code == 200
    assert stored(state) is None


# -- what a server that only reads does ----------------------------------------------------


def test_a_server_writes_only_if_it_was_started_so(state, tmp_path, document):
    with served(state, tmp_path, lambda: 2.0) as reading:
        answers = [
            reading(EXPERIMENTS, "POST", document),
            apply(reading, document),
            reading(f"{EXPERIMENTS}/x", "DELETE"),
        ]
    assert [one.code for one in answers] == [405] * 3
    assert "--write" in answers[0].body["message"]
    assert stored(state) is None


# -- events ------------------------------------------------------------------------------


def test_another_program_says_what_happened_to_an_object(api, state, document):
    api(EXPERIMENTS, "POST", document)
    event = {
        "involvedObject": {"kind": "Experiment", "name": "x"},
        "type": "Warning",
        "reason": "Seen",
        "message": "by an operator",
    }
    path = "/api/v1/namespaces/default/events"
    assert api(path, "POST", event).code == 201
    again = api(path, "POST", event).body
    assert (again["count"], again["reason"], again["type"]) == (2, "Seen", "Warning")
    with state.database.read() as connection:
        (found,) = [e for e in events.listed(connection) if e.reason == "Seen"]
    assert (found.key.name, found.message) == ("x", "by an operator")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"involvedObject": {"kind": "Experiment", "name": "y"}}, 404),
        ({"involvedObject": None}, 422),
        ({"reason": "two words"}, 422),
        ({"message": "a" * 1025}, 422),
    ],
)
def test_an_event_about_nothing_or_too_long_is_refused(api, state, document, change, code):
    api(EXPERIMENTS, "POST", document)
    about = {"kind": "Experiment", "name": "x"}
    event = {"involvedObject": about, "reason": "Seen", "message": "a"} | change
    assert api("/api/v1/namespaces/default/events", "POST", event).code == code
    with state.database.read() as connection:
        assert "Seen" not in {e.reason for e in events.listed(connection)}
