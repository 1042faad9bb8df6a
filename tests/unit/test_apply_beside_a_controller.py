"""Somebody applies while a controller writes statuses: those are no edits. Edits are."""

import json
from dataclasses import replace

import pytest

from loopscope.specs.keys import Key
from loopscope.state import failpoints
from loopscope.state.db import objects

KEY = Key("Experiment", "default", "x")


@pytest.fixture
def stored(loopscope, experiment, settled):
    """An experiment named x that was applied and settled; return the path of its file."""
    path = experiment()
    assert loopscope("apply", "-f", path)[0] == 0
    settled.settle()
    return path


def before_each_write(state, act):
    """Act through a transaction of its own before any other begins."""
    busy = []

    def handler(name):
        if name != "transaction-begin" or busy:
            return
        busy.append(name)
        with state.database.write() as connection:
            act(connection, objects.get(connection, KEY))
        busy.pop()

    return failpoints.handled_by(handler)


def move_status(connection, record):
    summary = {"moves": record.status.summary.get("moves", 0) + 1}
    status = replace(record.status, summary=summary)
    assert objects.update_status(connection, record, status, record.wanted_digest)


def edit_spec(connection, record):
    spec = {**record.spec, "maxTokens": record.spec["maxTokens"] + 1}
    objects.apply(
        connection, KEY, spec, now=0.0, labels=record.labels, annotations=record.annotations
    )


def protect(connection, record):
    value = record.annotations.get("note", "")
    objects.annotate(connection, record, "note", f"{value}!")


def test_statuses_that_move_while_somebody_applies_are_no_conflict(
    loopscope, experiment, settled, stored
):
    experiment(lambda spec: spec.update(maxTokens=77))
    with before_each_write(settled.state, move_status):
        assert loopscope("apply", "-f", stored, "--confirm")[:2] == (0, "experiment/x configured\n")
    found = settled.get("x")
    assert found.spec["maxTokens"] == 77 and found.status.summary["moves"] > 0


@pytest.mark.parametrize("act", [edit_spec, protect])
def test_edits_by_others_that_never_end_are_a_conflict_and_nothing_is_stored(
    loopscope, experiment, settled, stored, act
):
    experiment(lambda spec: spec.update(mapping={"minCosine": 0.77}))
    with before_each_write(settled.state, act):
        code, out, err = loopscope("apply", "-f", stored, "--confirm")
    assert (code, out) == (1, "") and "Conflict" in err
    assert settled.get("x").spec["mapping"]["minCosine"] != 0.77


def test_a_plan_stands_while_statuses_move_and_falls_with_an_edit(
    loopscope, experiment, settled, stored
):
    experiment(lambda spec: spec.update(maxTokens=77))
    assert loopscope("plan", "-f", stored, "-o", "plan.json")[0] == 0
    with settled.state.database.write() as connection:
        edit_spec(connection, objects.get(connection, KEY))
    assert "PlanOutdated" in loopscope("apply", "--plan", "plan.json", "--confirm")[2]
    assert loopscope("plan", "-f", stored, "-o", "plan.json")[0] == 0
    with before_each_write(settled.state, move_status):
        assert loopscope("apply", "--plan", "plan.json", "--confirm")[:2] == (
            0,
            "experiment/x configured\n",
        )


def test_an_unchanged_object_of_a_plan_may_move_its_status_too(
    loopscope, experiment, settled, stored
):
    text = stored.read_text().replace("name: x\n", "name: y\n", 1)
    (stored.parent / "y.yaml").write_text(text)
    words = ("-f", stored.parent, "--root", stored.parent.parent)
    assert loopscope("plan", *words, "-o", "plan.json")[0] == 0
    assert "Experiment/default/x" in json.loads((stored.parents[1] / "plan.json").read_text())[
        "editions"
    ]  # fmt: skip
    with settled.state.database.write() as connection:
        move_status(connection, objects.get(connection, KEY))
    code, out, err = loopscope("apply", "--plan", "plan.json", "--confirm")
    assert code == 0 and "experiment/y created" in out, err
