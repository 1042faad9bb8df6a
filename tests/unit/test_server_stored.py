"""Lists made from the text that is stored say what objects made from records say."""

import json
import os
from dataclasses import replace

import pytest

from loopscope.specs.keys import Key
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.status import Condition, Status
from loopscope.state.db import applied, leader, objects, pages
from loopscope.state.processes import process_name
from loopscope.state.records import AppliedRecord, ObjectText
from tests.simulated import Simulation, settled_experiment

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from loopscope.server.answers import encoded
from loopscope.server.choosing import choice_of
from loopscope.server.documents import Shape, seen, table, whole
from loopscope.server.reading import get_list
from loopscope.server.resources import resource_of
from loopscope.server.stored import _TIME, _is_ready, stored_list, stored_wholes


def both_ways(state):
    """Every object as a list has it, and as it is made alone."""
    from_text, alone = [], []
    with state.database.read() as connection:
        for kind in SPEC_BY_KIND:
            texts = pages.texts(connection, kind, None, rows_max=100)
            assert [one.record for one in texts] == objects.listed(connection, kind)
            wholes = stored_wholes(connection, texts)
            assert stored_list(connection, texts) == ", ".join(wholes).encode()
            from_text += map(json.loads, wholes)
            for record in objects.listed(connection, kind):
                (one,) = seen(connection, [record], with_owned=False)
                alone.append(json.loads(encoded(whole(one))))
    assert from_text
    return from_text, alone


def same(state):
    from_text, alone = both_ways(state)
    assert from_text == alone
    return {one["metadata"]["name"]: one for one in alone}


def test_what_is_settled_is_the_same_with_owners_managers_and_marks(tmp_path):
    world = settled_experiment(tmp_path / "state")
    key = Key("Experiment", "default", "france")
    with world.state.database.write() as connection:
        record = objects.get(connection, key)
        asked = AppliedRecord(key, record.uid, "file", {"mapping.topK": "1"}, ("a",), ("b/c",))
        applied.record(connection, asked)
        objects.annotate(connection, record, "example.org/note", '"lastTransitionTime": 1.0, ü\\')
    found = same(world.state)
    assert found["france"]["metadata"]["managedFields"][0]["operation"] == "Apply"
    assert found["france-mapping"]["metadata"]["ownerReferences"][0]["name"] == "france"


def test_who_applied_objects_is_the_same_in_one_namespace_and_in_several(tmp_path):
    world = settled_experiment(tmp_path / "state")
    places = [("a", "x"), ("a", "y"), ("b", "x"), ("c", "x"), ("c", "z")]
    with world.state.database.write() as connection:
        for namespace, name in places:
            key = Key("Mapping", namespace, name)
            objects.apply(connection, key, {"topK": 1}, now=1.0)
            uid = objects.get(connection, key).uid
            applied.record(connection, AppliedRecord(key, uid, f"by-{name}", {}, (), ()))
        (wanted,) = applied.of_uids(connection, [uid]).values()
    same(world.state)
    with world.state.database.read() as connection:
        keys = [Key("Mapping", *place) for place in places]
        alone = applied.between(connection, keys[4], keys[4])
        several = applied.between(connection, keys[1], keys[3])
    assert list(alone.values()) == [wanted]
    assert {one.key for one in several.values()} >= set(keys[1:4])


def test_what_a_job_changed_since_is_the_same_with_and_without_a_controller(tmp_path):
    world = Simulation(tmp_path / "state")
    world.apply()
    world.step_until_running()
    found = same(world.state)
    assert "True" not in {c["status"] for c in found["france"]["status"]["conditions"][:1]}
    with world.state.database.write() as connection:
        leader.announce(connection, process_name(os.getpid()), {}, now=1.0)
    same(world.state)


def test_a_message_that_looks_like_a_date_and_a_number_that_is_none_are_the_same(tmp_path):
    world = settled_experiment(tmp_path / "state")
    key = Key("Mapping", "default", "alone")
    message = 'say "lastTransitionTime": 5, or NaN \\"lastTransitionTime": 7'
    condition = Condition("Ready", "True", "Done", message, 1, 12.5)
    summary = {"not": float("nan"), "far": -float("inf"), "text": "NaN", "near": 1.5}
    with world.state.database.write() as connection:
        objects.apply(connection, key, {"topK": 1}, now=1.0)
        record = objects.get(connection, key)
        objects.update_status(connection, record, Status(1, (condition,), summary), None)
    found = same(world.state)["alone"]["status"]
    assert found["summary"] == {"not": None, "far": None, "text": "NaN", "near": 1.5}
    assert found["conditions"][0]["message"] == message
    assert found["conditions"][0]["lastTransitionTime"] == "1970-01-01T00:00:12Z"


@pytest.mark.parametrize("observed", [1, 2])
def test_a_message_that_looks_like_the_end_of_a_condition_makes_nothing_ready(tmp_path, observed):
    world = settled_experiment(tmp_path / "state")
    key = Key("Mapping", "default", "alone")
    message = (
        'x", "observedGeneration": 2, "lastTransitionTime": 3.0}, \\", "observedGeneration": 2, '
    )
    with world.state.database.write() as connection:
        for top in (1, 2):
            objects.apply(connection, key, {"topK": top}, now=1.0)
        record = objects.get(connection, key)
        status = Status(2, (Condition("Ready", "True", "Done", message, observed, 12.5),))
        objects.update_status(connection, record, status, None)
        (text,) = [
            one
            for one in pages.texts(connection, "Mapping", None, rows_max=9)
            if one.name == "alone"
        ]
    assert _is_ready(text.status.split(_TIME)[0], text.generation) == (observed == 2)
    found = same(world.state)["alone"]["status"]["conditions"][0]
    assert found["message"] == message and found["lastTransitionTime"] == "1970-01-01T00:00:12Z"


def test_an_object_that_waits_for_its_deletion_is_the_same(tmp_path):
    world = settled_experiment(tmp_path / "state")
    with world.state.database.write() as connection:
        (text,) = pages.texts(connection, "Mapping", None, rows_max=100)
    marked = text._replace(finalizers='["example.org/hold"]', deletion_timestamp=9.0)
    with world.state.database.read() as connection:
        (made,) = stored_wholes(connection, [marked])
        (one,) = seen(connection, [marked.record], with_owned=False)
    assert json.loads(made) == whole(one) and "deletionTimestamp" in whole(one)["metadata"]


def test_a_record_becomes_text_and_the_same_record_again(tmp_path):
    world = settled_experiment(tmp_path / "state")
    for record in world.objects():
        assert ObjectText.of(record).record == record
        assert ObjectText.of(replace(record, spec={})).record.spec == {}


def test_rows_in_parts_are_the_rows_of_one_table(tmp_path, monkeypatch):
    monkeypatch.setattr("loopscope.server.reading.ROWS_PER_STATEMENT", 2)
    world = settled_experiment(tmp_path / "state")
    with world.state.database.write() as connection:
        for name in "abcde":
            objects.apply(connection, Key("Mapping", "many", name), {"topK": 1}, now=1.0)
        found = seen(connection, objects.listed(connection, "Mapping", "many"), with_owned=True)
    shape, choice = Shape(as_table=True), choice_of(resource_of("mappings"), "many", {})

    def asked(query):
        return json.loads(b"".join(get_list(world.state, choice, query, shape, now=9.0)))

    whole_table = table("Mapping", found, shape, now=9.0, metadata=asked({})["metadata"])
    assert asked({}) == json.loads(encoded(whole_table))
    first = asked({"limit": "3"})
    second = asked({"continue": first["metadata"]["continue"]})
    assert [row["cells"][0] for row in first["rows"] + second["rows"]] == list("abcde")


def test_a_list_that_is_taken_slowly_bears_the_version_from_which_a_watch_brings_the_rest(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("loopscope.server.reading.ROWS_PER_STATEMENT", 2)
    state = settled_experiment(tmp_path / "state").state

    def put(name, top):
        with state.database.write() as connection:
            objects.apply(connection, Key("Mapping", "many", name), {"topK": top}, now=1.0)

    for name in "abcde":
        put(name, 1)
    with state.database.read() as connection:
        version = objects.resource_version(connection)
    choice = choice_of(resource_of("mappings"), "many", {})
    pieces = get_list(state, choice, {}, Shape(), now=9.0)
    first = next(pieces)
    put("a", 2)
    put("f", 1)
    found = json.loads(first + b"".join(pieces))
    assert found["metadata"] == {"resourceVersion": str(version)}
    tops = {one["metadata"]["name"]: one["spec"]["topK"] for one in found["items"]}
    assert tops == dict.fromkeys("abcdef", 1), "what a watch brings is seen twice, or later"
    with state.database.read() as connection:
        missed = objects.changes_since(connection, version)
    assert [one.key.name for one in missed] == ["a", "f"]


@pytest.mark.parametrize("shape", [Shape(), Shape(as_table=True)])
def test_a_list_of_nothing_is_a_whole_document(tmp_path, shape):
    state = settled_experiment(tmp_path / "state").state
    choice = choice_of(resource_of("mappings"), "nowhere", {})
    found = json.loads(b"".join(get_list(state, choice, {}, shape, now=9.0)))
    assert found["rows" if shape.as_table else "items"] == [] and found["metadata"]
