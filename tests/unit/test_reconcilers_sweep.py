"""The status of a sweep from its cells, by hand."""

from dataclasses import replace

import pytest

from loopscope.reconcilers.cells import _conditions
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
