"""Earlier specs: kept with what replaces them, within limits, and stored again on demand."""

import json

import pytest

from loopscope.specs.keys import Key
from loopscope.state.db import objects, revisions
from loopscope.state.folder import open_state
from tests.simulated import Simulation, capture_spec, texts

KEY = Key("Capture", "default", "cap")


@pytest.fixture
def state(tmp_path):
    return open_state(tmp_path / "state")


def store(state, spec, at, key=KEY):
    with state.database.write() as connection:
        objects.apply(connection, key, spec, now=at)


def kept(state, key=KEY):
    with state.database.read() as connection:
        record = objects.get(connection, key)
        return [(one.generation, one.spec, one.replaced_at)
                for one in revisions.listed(connection, record.uid)]  # fmt: skip


# -- the table -----------------------------------------------------------------------------


def test_a_spec_is_kept_when_another_replaces_it(state):
    store(state, {"a": 1}, 10.0)
    store(state, {"a": 1}, 20.0)
    assert kept(state) == []
    store(state, {"a": 2}, 30.0)
    assert kept(state) == [(1, {"a": 1}, 30.0)]


def test_a_change_that_is_taken_back_with_its_transaction_leaves_no_revision(state):
    store(state, {"a": 1}, 10.0)
    with pytest.raises(ZeroDivisionError), state.database.write() as connection:
        objects.apply(connection, KEY, {"a": 2}, now=20.0)
        raise ZeroDivisionError
    assert kept(state) == []


def test_the_newest_of_one_object_are_kept(state):
    for number in range(revisions.REVISIONS_KEPT + 3):
        store(state, {"a": number}, float(number))
    generations = [generation for generation, _, _ in kept(state)]
    newest = revisions.REVISIONS_KEPT + 2
    assert generations == list(range(newest - revisions.REVISIONS_KEPT + 1, newest + 1))


def test_all_together_take_no_more_than_so_many_bytes(state, monkeypatch):
    monkeypatch.setattr(revisions, "BYTES_KEPT", 2_000)
    other = Key("Capture", "default", "other")
    for number in range(4):
        store(state, {"a": str(number) * 500}, float(number))
        store(state, {"a": str(number) * 500}, float(number), other)
    everything = [*kept(state), *kept(state, other)]
    assert sum(len(json.dumps(spec)) for _, spec, _ in everything) <= 2_000
    assert min(at for _, _, at in everything) > 1.0


def test_one_spec_that_is_larger_than_all_may_be_is_kept(state, monkeypatch):
    monkeypatch.setattr(revisions, "BYTES_KEPT", 10)
    store(state, {"a": "x" * 100}, 1.0)
    store(state, {"a": "y" * 100}, 2.0)
    assert [generation for generation, _, _ in kept(state)] == [1]


def test_a_deleted_object_leaves_none_and_its_successor_has_none(state):
    store(state, {"a": 1}, 1.0)
    store(state, {"a": 2}, 2.0)
    with state.database.write() as connection:
        uid = objects.get(connection, KEY).uid
        objects.remove(connection, KEY, now=3.0)
        assert revisions.listed(connection, uid) == []
    store(state, {"a": 1}, 4.0)
    assert kept(state) == []


def test_what_an_owner_makes_has_no_history(settled):
    with settled.state.database.read() as connection:
        [mapping] = objects.listed(connection, "Mapping")
        before = mapping.generation
    from tests.simulated import experiment_spec

    settled.apply(experiment_spec(mapping={"minCosine": 0.35}))
    settled.settle()
    with settled.state.database.read() as connection:
        [mapping] = objects.listed(connection, "Mapping")
        assert mapping.generation > before and revisions.listed(connection, mapping.uid) == []


# -- the commands --------------------------------------------------------------------------


@pytest.fixture
def edited(loopscope, experiment):
    """An experiment with three specs: minCosine 0.3, 0.4 and 0.5."""
    loopscope("apply", "-f", experiment())
    for cosine in (0.4, 0.5):
        loopscope("patch", "exp", "x", "-p", f"{{spec: {{mapping: {{minCosine: {cosine}}}}}}}")


def cosine_of(loopscope):
    return loopscope("get", "exp", "x", "-o", "jsonpath={.spec.mapping.minCosine}")[1].strip()


def test_history_says_what_changed_and_when(loopscope, edited):
    head, *rows = loopscope("rollout", "history", "exp", "x")[1].splitlines()
    assert head.split() == ["REVISION", "AGE", "CHANGES"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert rows[0].endswith("created") and rows[2].endswith("mapping.minCosine: 0.4 -> 0.5")
    document = json.loads(loopscope("rollout", "history", "exp/x", "-o", "json")[1])
    change = {"field": "mapping.minCosine", "before": 0.3, "after": 0.4}
    assert document[1]["changes"] == [change] and document[2]["current"]
    one = json.loads(
        loopscope("rollout", "history", "exp", "x", "--revision", "2", "-o", "json")[1]
    )
    assert one["mapping"]["minCosine"] == 0.4


def test_undo_stores_the_spec_before_or_the_one_that_was_named(loopscope, edited):
    assert loopscope("rollout", "undo", "exp", "x")[1] == "experiment/x configured\n"
    assert cosine_of(loopscope) == "0.4"
    assert loopscope("rollout", "undo", "exp", "x", "--to-revision=1")[0] == 0
    assert cosine_of(loopscope) == "0.3"
    rows = loopscope("rollout", "history", "exp", "x")[1].splitlines()
    assert [row.split()[0] for row in rows[1:]] == ["1", "2", "3", "4", "5"]


def test_there_is_no_way_back_to_what_is_not_kept(loopscope, edited, experiment):
    code, _, err = loopscope("rollout", "undo", "exp", "x", "--to-revision", "7")
    assert code == 1 and "kept are 1, 2, 3" in err
    loopscope("delete", "exp", "x")
    loopscope("apply", "-f", experiment())
    code, _, err = loopscope("rollout", "undo", "exp", "x")
    assert code == 1 and "no earlier spec" in err


def test_undo_asks_before_much_finished_work_is_discarded(
    loopscope, experiment, tmp_path, monkeypatch
):
    from loopscope.controller.plan import requests

    experiment()  # for the model
    model = {"name": "tiny", "source": {"folder": str(tmp_path / "model")}, "dtype": "float32"}
    world = Simulation(tmp_path / "state")
    for target in ("a", "b"):
        prompts = {"target": texts(target), "neutral": texts("c")}
        spec = capture_spec(model=model, hook="blocks.1.hook_resid_post", prompts=prompts)
        world.apply(spec, "cap", "Capture")
        world.settle()
    monkeypatch.setattr(requests, "DISCARD_SECONDS_MAX", -1.0)
    code, _, err = loopscope("rollout", "undo", "capture", "cap")
    assert code == 1 and "ConfirmationNeeded" in err
    assert loopscope("rollout", "undo", "capture", "cap", "--confirm")[0] == 0


def test_an_owned_object_refers_to_its_owner(loopscope, settled):
    code, _, err = loopscope("rollout", "history", "mapping", "france")
    assert code == 1 and "follows from experiment/france" in err
