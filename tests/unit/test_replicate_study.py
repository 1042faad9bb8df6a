"""A study over an axis: every concept is tried, and every value has the whole answer."""

import json

import pytest

from loopscope.controller.plan import editing
from loopscope.specs.files import RootedFiles
from loopscope.specs.keys import Key
from loopscope.views.numbers import MISSING
from loopscope.views.replication.studies import load_study_again, share_rows
from tests import fake_stages
from tests.simulated import Simulation
from tests.unit.test_controller_study import TRUTH, planted, settled_study

STUDY = Key("Study", "default", "s")


@pytest.fixture(autouse=True)
def _nothing_is_looked_up(monkeypatch):
    """Model and dictionaries of the simulation lie nowhere."""
    monkeypatch.setattr(RootedFiles, "locate", lambda self, path: path)
    monkeypatch.setattr(editing, "admitted", lambda loaded: loaded)


@pytest.fixture
def tried(tmp_path, loopscope, monkeypatch):
    """The study over two seeds, of which the second turns it round and leaves one untestable."""
    settled_study(tmp_path / "state").state.database.close()
    own, turned = planted(TRUTH), planted({**dict.fromkeys(TRUTH, -0.3), "rain": None})

    def steering(payload, upstream):
        return (turned if payload["sampling"]["seed"] == 6 else own)(payload, upstream)

    monkeypatch.setitem(fake_stages._RUN, "steering", steering)
    code, out, err = loopscope("replicate", "study/s", "--axis", "seed=5,6", "--no-run")
    assert code == 1 and "not finished" in out, err
    world = Simulation(tmp_path / "state", slots=8, job_starts_per_minute=10_000)
    world.settle(800)
    world.state.database.close()
    return lambda *words: loopscope(
        "replicate", "study/s", "--axis", "seed=5,6", *words, "--no-run"
    )


def test_every_value_has_the_studys_whole_answer(tried):
    code, out, _ = tried("-o", "json")
    (found,) = json.loads(out)
    answers = {one["value"]: (one["answer"], one["testable"]) for one in found["values"]}
    assert answers["own"] == ("Supported", 5)
    assert answers["s5"][0] == "Supported" and answers["s6"][0] == "Refuted"
    assert (answers["s5"][1], answers["s6"][1]) == (5, 4)
    assert found["values"][2]["estimate"] < 0 < found["values"][1]["estimate"]
    assert code == 1, "one value does not hold"


def test_concepts_and_values_that_replicate_are_shares_with_intervals(tried):
    (found,) = json.loads(tried("-o", "json")[1])
    shares = {(one["value"], one["what"]): one for one in found["shares"]}
    again = shares["s6", "testable concepts that are testable again"]
    assert (again["count"], again["of"]) == (4, 5)
    every = shares["all", "values with the study's word"]
    assert (every["count"], every["of"]) == (1, 2)
    assert all(one["low"] <= one["count"] / one["of"] <= one["high"] for one in shares.values())


def test_the_table_has_a_row_a_value_and_the_study_stays_as_it_was(tried, loopscope):
    _, out, _ = tried()
    assert [row.split()[:3] for row in out.splitlines()[1:4]] == [
        ["seed", "own", "Supported"],
        ["seed", "s5", "Supported"],
        ["seed", "s6", "Refuted"],
    ]  # fmt: skip
    assert "Supported" in loopscope("get", "studies")[1]


def test_a_concept_that_has_no_answer_yet_leaves_its_value_without_one(tmp_path, loopscope):
    world = settled_study(tmp_path / "state")
    loopscope("replicate", "study/s", "--axis", "seed=5", "--no-run")
    with world.state.database.read() as connection:
        found = load_study_again(connection, STUDY, "seed")
    assert found.own.answer.word == "Supported" and not found.holds
    assert [row[2] for row in list(found.rows())[1:]] == ["Supported", "not finished"]
    assert all(one.of == 0 for _, _, one in found.shares())
    assert [row[-1] for row in list(share_rows(list(found.shares())))[1:]] == [MISSING] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("study/s",), "name what should differ"),
        (("study/t", "--axis", "seed"), "no study named 't'"),
        (("study/s", "--axis", "moon"), "--axis 'moon'; expected one of"),
    ],
)
def test_what_cannot_be_tried_is_said(tmp_path, loopscope, words, message):
    settled_study(tmp_path / "state").state.database.close()
    code, _, err = loopscope("replicate", *words, "--no-run")
    assert code != 0 and message in err
