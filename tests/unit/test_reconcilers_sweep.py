"""The status of a sweep from its cells, by hand."""

from dataclasses import replace

import pytest

from loopscope.reconcilers import sweep
from loopscope.reconcilers.cells import _conditions
from loopscope.reconcilers.holding import held_over
from loopscope.reconcilers.plan import Snapshot
from loopscope.reconcilers.sweep import BEST_MAX, _summary
from loopscope.specs.status import Condition, Status
from tests.hand_built import stored

SNAPSHOT = Snapshot(stored("Experiment", "s", {}), 5.0)


def cell(name, status="True", reason="Succeeded", message="", stalled=False, **summary):
    record = stored("Experiment", f"s-{name}", {})
    conditions = (Condition("Ready", status, reason, message, 1),)
    if stalled:
        conditions += (Condition("Stalled", "True", reason, message, 1),)
    return replace(record, status=Status(1, conditions, summary))


DONE, WAITS = cell("a"), cell("b", "False", "JobPending")
STALLED = cell("c", "False", "DiskFull", "no space", stalled=True)
STALLED_TOO = cell("d", "False", "Other", "x", stalled=True)


@pytest.mark.parametrize(
    ("found", "fresh", "expected"),
    [
        ([DONE, DONE], True, [("Ready", "True", "ChildrenReady", "2 of 2 cells are ready")]),
        ([DONE, DONE], False, [
            ("Ready", "False", "ChildrenNotReady", "applying the cells"),
            ("Reconciling", "True", "ChildrenNotReady", "applying the cells"),
        ]),
        ([DONE, WAITS, None], True, [
            ("Ready", "False", "ChildrenNotReady", "1 of 3 cells are ready"),
            ("Reconciling", "True", "ChildrenNotReady", "1 of 3 cells are ready"),
        ]),
        ([DONE, STALLED], True, [
            (type_, status, "ChildStalled",
             "1 of 2 cells are ready; s-c needs a human: no space")
            for type_, status in (("Ready", "False"), ("Stalled", "True"))
        ]),
        ([STALLED, STALLED_TOO, WAITS], True, [
            (type_, status, "ChildStalled",
             "0 of 3 cells are ready; s-c (and 1 more) needs a human: no space")
            for type_, status in (("Ready", "False"), ("Stalled", "True"))
        ]),
        ([STALLED], False, [
            ("Ready", "False", "ChildrenNotReady", "applying the cells"),
            ("Reconciling", "True", "ChildrenNotReady", "applying the cells"),
        ]),
    ],
)  # fmt: skip
def test_a_sweep_says_how_many_cells_are_ready_and_what_stops_it(found, fresh, expected):
    conditions = _conditions(SNAPSHOT, found, "cells", fresh=fresh)
    assert [(c.type, c.status, c.reason, c.message) for c in conditions] == expected


def test_the_best_cells_are_ranked_by_verdict_then_gate_then_estimate_percentile_and_name():
    cells = [
        cell("a", gate="GO", verdict="Refuted", estimate=0.9),
        cell("b", gate="NO-GO", verdict="Supported", estimate=0.1),
        cell("c", gate="GO", verdict="Supported", estimate=0.1, percentile=90),
        cell("d", gate="GO", verdict="Supported", estimate=0.1, percentile=95),
        cell("e", gate="GO", verdict="Supported", estimate=0.2),
        cell("f", gate="GO"),
        cell("g"),
        cell("h", "False", "X", gate="GO", verdict="Supported", estimate=9.0),
    ]

    def best(found):
        return [each["cell"] for each in _summary("s", found)["best"]]

    assert best(cells) == ["e", "d", "c"] and BEST_MAX == 3
    left = [c for c in cells if c.key.name[-1] not in "edc"]
    assert best(left) == ["b", "a", "f"]
    assert best([cells[3], replace(cells[3], key=cells[3].key._replace(name="s-aa"))]) == [
        "aa", "d",
    ]  # fmt: skip


def test_a_sweep_counts_its_cells_and_tells_of_the_best_only_what_is_known():
    found = [cell("a", gate="GO", verdict=None, estimate=0.5, other=1), WAITS, STALLED, None]
    assert _summary("s", found) == {
        "cells": 4, "ready": 1, "stalled": 1,
        "best": [{"cell": "a", "gate": "GO", "estimate": 0.5}],
    }  # fmt: skip


CELLS = [
    (("openings", openings), ("sampling", sampling))
    for openings in ("own", "templated")
    for sampling in ("greedy", "t08")
]


def test_a_verdict_holds_over_axes_where_every_cell_along_them_says_the_same_word():
    words = ["Supported", "Supported", "Supported", "Inconclusive"]
    first, second = held_over(["sampling"], CELLS, words)
    assert first == {
        "where": {"openings": "own"},
        "holds": True,
        "verdict": "Supported",
        "words": {"Supported": ["greedy", "t08"]},
    }
    assert (second["holds"], second["verdict"]) == (False, None)
    assert second["words"] == {"Supported": ["greedy"], "Inconclusive": ["t08"]}
    (over_all,) = held_over(["sampling", "openings"], CELLS, words)
    assert (over_all["where"], over_all["holds"]) == ({}, False)
    assert over_all["words"]["Inconclusive"] == ["templated-t08"]


@pytest.mark.parametrize(
    ("words", "holds", "verdict"),
    [
        (["Refuted"] * 4, True, "Refuted"),
        (["Inconclusive"] * 4, True, "Inconclusive"),
        (["NotTestable"] * 4, False, "NotTestable"),
        (["Supported", "Supported", "Supported", None], None, None),
        ([None] * 4, None, None),
        (["Supported", "Refuted", None, None], False, None),
    ],
)
def test_what_is_not_known_yet_or_was_not_testable_does_not_hold(words, holds, verdict):
    (found,) = held_over(["openings", "sampling"], CELLS, words)
    assert (found["holds"], found["verdict"]) == (holds, verdict)


def test_a_sweep_says_in_its_status_where_its_verdict_holds():
    values = {"greedy": {"steering.sampling.greedy": True}, "t08": {}}
    record = stored("Experiment", "s", {"matrix": {"sampling": values}, "holdOver": ["sampling"]})
    wanted = sweep.cell_manifests(record)
    assert all("holdOver" not in one.spec for one in wanted)
    ready = Status(1, (Condition("Ready", "True", "ChildrenReady", "", 1),), {"verdict": "Refuted"})
    children = tuple(
        replace(stored("Experiment", one.key.name, one.spec), status=ready) for one in wanted
    )
    (held,) = sweep.plan(Snapshot(record, 1.0, {}, children=children)).status.summary["holds"]
    assert (held["holds"], held["verdict"]) == (True, "Refuted")
    without = replace(record, spec={"matrix": {"sampling": values}})
    summary = sweep.plan(Snapshot(without, 1.0, {}, children=children)).status.summary
    assert "holds" not in summary
