"""The grid of a sweep: axes as columns, what each value sets, what came out or why not."""

import pytest

from loopscope.specs.keys import Key
from loopscope.state.db import objects
from loopscope.state.folder import open_state
from loopscope.views.sweeps import (
    NOT_CREATED,
    held_sentences,
    load_sweep,
    sweep_document,
    sweep_lines,
)
from tests.unit.test_controller_sweep import settled_sweep
from tests.unit.test_reports_several import add, said, state

__all__ = ["state"]

SPEC = {
    "matrix": {
        "hook": {"low": {"hook": "blocks.1"}, "high": {"hook": "blocks.2"}},
        "concept": {
            "rain": {"steering.lexicon": {"file": "r.txt", "texts": ["a", "b"]}},
            "own": {},
        },
    }
}


@pytest.fixture
def sweep(state):
    key = Key("Experiment", "default", "s")
    with state.database.write() as connection:
        objects.apply(connection, key, SPEC, now=0.0)
        owner = objects.get(connection, key)
    add(state, "s-own-low", said("Supported", 0.3, supported=0.001), owner=owner)
    add(state, "s-rain-low", {"gate": "NO-GO", "percentile": 40.0}, owner=owner, openings=7)
    add(state, "s-gone-low", said("Supported", 0.9), owner=owner, openings=8)
    with state.database.read() as connection:
        return load_sweep(connection, key)


def test_axes_and_values_come_by_name_with_what_they_set(sweep):
    assert [axis.name for axis in sweep.axes] == ["concept", "hook"]
    concept, hook = sweep.axes
    assert [value.name for value in hook.values] == ["high", "low"]
    assert hook.values[0].sets == (("hook", "blocks.2"),)
    assert concept.values[0].sets == ()
    assert concept.values[1].sets == (("steering.lexicon", "2 texts (r.txt)"),)


def test_of_a_part_that_is_set_as_a_whole_stands_what_differs_from_the_sweeps_own(state):
    key = Key("Experiment", "default", "parts")
    own = {"minCosine": 0.3, "topK": 4, "inner": {"depth": 1, "words": {"texts": ["a"]}}}
    whole = {"minCosine": 0.3, "topK": 9, "inner": {"depth": 2, "words": {"texts": ["a"]}}}
    values = {"own": {"mapping": own}, "bare": {"mapping": {"minCosine": 0.3}}}
    matrix = {"part": {**values, "whole": {"mapping": whole}}, "new": {"made": {"damage": own}}}
    with state.database.write() as connection:
        objects.apply(connection, key, {"mapping": own, "matrix": matrix}, now=0.0)
    with state.database.read() as connection:
        new, part = load_sweep(connection, key).axes
    sets = {value.name: dict(value.sets) for value in part.values}
    assert sets["own"] == {}
    assert sets["whole"] == {"mapping.inner.depth": "2", "mapping.topK": "9"}
    assert sets["bare"] == {
        "mapping.inner.depth": "-", "mapping.inner.words": "-", "mapping.topK": "-"
    }  # fmt: skip
    assert dict(new.values[0].sets)["damage.inner.words"] == "1 texts"


def test_every_combination_has_a_cell_and_no_other_experiment_has(sweep):
    assert [cell.values for cell in sweep.cells] == [
        ("own", "high"), ("own", "low"), ("rain", "high"), ("rain", "low"),
    ]  # fmt: skip
    assert [cell.state for cell in sweep.cells] == [NOT_CREATED, "Ready", NOT_CREATED, "Ready"]
    assert sweep.ready == 2


def test_a_cell_has_its_own_word_and_the_one_after_the_correction(sweep):
    cells = {cell.name: cell for cell in sweep.cells}
    own = cells["s-own-low"].row
    assert (own.word, own.corrected, own.estimate) == ("Supported", "Supported", 0.3)
    assert cells["s-rain-low"].percentile == 40.0
    assert sweep.together is not None and len(sweep.together.rows) == 2


def test_lines_and_document_say_the_same(sweep):
    head, *rows = sweep_lines(sweep)
    assert head[:3] == ("concept", "hook", "state") and {len(row) for row in rows} == {len(head)}
    document = sweep_document(sweep)
    assert [one["values"] for one in document["cells"]][1] == {"concept": "own", "hook": "low"}
    assert document["cells"][1]["verdict"] == rows[1][head.index("verdict")] == "Supported"
    assert document["axes"]["hook"]["low"] == {"hook": "blocks.1"}
    assert document["sentences"] and document["cells"][0]["verdict"] is None


def test_what_is_no_sweep_is_not_read_as_one(state):
    key = add(state, "one", said("Supported", 0.3))
    with state.database.read() as connection, pytest.raises(KeyError):
        load_sweep(connection, key)


def test_a_sweep_without_steering_still_has_its_gates(tmp_path):
    settled_sweep(tmp_path / "state")
    with open_state(tmp_path / "state").database.read() as connection:
        found = load_sweep(connection, Key("Experiment", "default", "s"))
    assert len(found.cells) == found.ready == 8 and found.together is None
    assert "GO" in {cell.row.gate for cell in found.cells}


def test_a_verdict_that_is_asked_to_hold_is_told_in_a_sentence_for_each_place():
    words = {"Supported": ["greedy"], "Refuted": ["t08", "t10"]}
    one = {"where": {"openings": "own"}, "holds": True, "verdict": "Supported", "words": {}}
    summary = {
        "holds": [
            one,
            {**one, "where": {}, "holds": False, "verdict": None, "words": words},
            {**one, "where": {}, "holds": None, "verdict": None},
        ]
    }
    spec = {"holdOver": ["sampling"]}
    assert held_sentences(spec, summary) == (
        "With openings own the verdict holds over sampling: Supported in every cell.",
        "The verdict does not hold over sampling: Supported at greedy; Refuted at t08, t10.",
        "The verdict is asked to hold over sampling; not all cells have one yet.",
    )
    assert held_sentences({}, {}) == ()
