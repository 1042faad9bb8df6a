"""Several verdicts side by side: in the report, in describe and get, in a notebook."""

import numpy as np
import pytest

import loopscope as package
from loopscope.numerics.verdict.decision import Evidence, VerdictRules
from loopscope.specs.keys import SOURCE_ANNOTATION, Key
from loopscope.specs.status import Condition, Status
from loopscope.state.db import objects
from loopscope.state.folder import open_state
from loopscope.views.numbers import MISSING
from loopscope.worker.stages.steering.tables import _metrics
from loopscope.worker.stages.steering.verdict_record import decision_record
from tests.unit.reports_case import experiment_spec, set_status
from tests.unit.reports_payloads import Sizes

NOW = 1_750_000_000.0
READY = (Condition("Ready", "True", "ChildrenReady", "all stages are done", 1, NOW),)


def said(word, estimate, *, supported=1.0, refuted=1.0, no_difference=1.0):
    ends = {"estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.1}
    return {
        "gate": "GO",
        "verdict": word,
        "contrast": "multi-fine",
        **ends,
        "n": 100,
        "p": {"supported": supported, "refuted": refuted, "no_difference": no_difference},
        "primary": {"multi-coarse": ends, "multi-fine": ends},
    }


SURE = said("Supported", 0.3, supported=0.001)
LUCKY = said("Supported", 0.2, supported=0.02)
DOUBTFUL = said("Inconclusive", 0.05, supported=0.4)
UNTESTED = {"gate": "NO-GO", "verdict": "NotTestable", "reason": "the gate says NO-GO"}


def add(state, name, summary, *, owner=None, source=None, openings=6):
    """Store an experiment that is Ready with this summary."""
    key = Key("Experiment", "default", name)
    spec = experiment_spec(Sizes(openings=openings), True, {})
    notes = {SOURCE_ANNOTATION: str(source)} if source else {}
    with state.database.write() as connection:
        objects.apply(connection, key, spec, now=NOW, owner=owner, annotations=notes)
    set_status(state, key, Status(1, READY, summary))
    return key


@pytest.fixture
def state(tmp_path):
    return open_state(tmp_path / "state")


@pytest.fixture
def swept(state):
    """A sweep s of four cells: one sure, one lucky, one in doubt, one not tested."""
    key = Key("Experiment", "default", "s")
    spec = {**experiment_spec(Sizes(), True, {}), "matrix": {"cell": {name: {} for name in "abcd"}}}
    with state.database.write() as connection:
        objects.apply(connection, key, spec, now=NOW)
        owner = objects.get(connection, key)
    best = [{"cell": name, "verdict": "Supported", "gate": "GO"} for name in ("a", "b")]
    set_status(state, key, Status(1, READY, {"cells": 4, "ready": 4, "stalled": 0, "best": best}))
    cells = {"a": SURE, "b": LUCKY, "c": DOUBTFUL, "d": UNTESTED}
    for number, (name, summary) in enumerate(cells.items()):
        add(state, f"s-{name}", summary, owner=owner, openings=6 + number)
    return state


def row_of(text, name):
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
    return line.split()


def test_describe_of_a_sweep_shows_each_word_beside_the_one_that_stays(swept, loopscope):
    _, out, _ = loopscope("describe", "experiment", "s")
    grid = out.partition("Grid:\n")[2]
    assert row_of(grid, "s-a")[1:7] == ["a", "Ready", "GO", MISSING, "Supported", "Supported"]
    assert row_of(grid, "s-b")[1:7] == ["b", "Ready", "GO", MISSING, "Supported", "Inconclusive"]
    assert row_of(grid, "s-d")[5:7] == ["NotTestable", "NotTestable"]
    assert "Corrected over 4 verdicts by Holm, finished or not: 1 of 2 words stay said." in out
    assert "Pooled over 3 tested cells: Inconclusive" in out


def test_get_says_of_the_best_which_word_did_not_stay(swept, loopscope):
    _, out, _ = loopscope("get", "experiment", "s")
    assert "a (Supported), b (Supported, corrected Inconclusive)" in out


def test_the_report_of_a_sweep_holds_all_cells_and_the_pooled_row(swept, loopscope, tmp_path):
    code, out, _ = loopscope("report", "s", "-o", tmp_path / "s.html")
    page = (tmp_path / "s.html").read_text()
    assert code == 0 and out == f"report: {tmp_path / 's.html'}\n"
    assert all(f'data-cell="s-{name}"' in page for name in "abcd")
    assert "Pooled over 3 tested cells" in page and "after Holm" in page


def test_a_cell_alone_has_its_own_report(swept, loopscope, tmp_path):
    assert loopscope("report", "s-a", "-o", tmp_path / "a.html")[0] == 0
    assert "Holm" not in (tmp_path / "a.html").read_text().partition("Provenance")[0]


def test_a_folder_stands_for_the_experiments_that_came_from_it(state, loopscope, tmp_path):
    folder = tmp_path / "specs"
    (folder / "deep").mkdir(parents=True)
    add(state, "one", SURE, source=folder / "one.yaml")
    add(state, "two", LUCKY, source=folder / "deep" / "two.yaml")
    add(state, "other", DOUBTFUL, source=tmp_path / "elsewhere" / "other.yaml")
    assert loopscope("report", folder, "-o", tmp_path / "all.html")[0] == 0
    page = (tmp_path / "all.html").read_text()
    assert ">one<" in page and ">two<" in page and ">other<" not in page
    assert "1 of 2 words" not in page and "2 of 2 words stay said" in page
    assert loopscope("report", "one", "two", "other", "-o", tmp_path / "all.html")[0] == 0
    assert "1 of 2 words stay said" in (tmp_path / "all.html").read_text()


def test_a_folder_from_which_nothing_came_is_an_error_that_says_so(state, loopscope, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = loopscope("report", tmp_path / "empty")
    assert code == 1 and "no experiment was applied from a file in" in err


def test_fewer_than_two_verdicts_are_not_corrected(state, loopscope):
    add(state, "one", LUCKY)
    code, _, err = loopscope("report", "one", "missing")
    assert code == 1 and "no experiment named 'missing'" in err
    experiments = package.open(state.path).experiments
    with pytest.raises(LookupError, match="fewer than two"):
        experiments.together()


def test_a_notebook_gets_the_same_table(swept):
    table = package.open(swept.path).experiments.together(["s"])
    assert table.loc["s-b", ["verdict", "corrected"]].tolist() == ["Supported", "Inconclusive"]
    assert table.loc["s-a", "p"] == pytest.approx(0.004)
    assert table.loc["pooled", "verdict"] == "Inconclusive"
    assert table.loc["pooled", "low"] < table.loc["pooled", "estimate"] < 0.3


def test_a_word_of_an_older_version_is_shown_as_not_corrected(state, loopscope, tmp_path):
    old = {name: value for name, value in SURE.items() if name not in ("p", "primary")}
    add(state, "old", old)
    add(state, "new", SURE)
    assert loopscope("report", "old", "new", "-o", tmp_path / "r.html")[0] == 0
    page = (tmp_path / "r.html").read_text()
    assert "not recorded" in page and "There is no pooled row" in page


def test_a_steering_tells_its_status_what_several_verdicts_are_corrected_by():
    rng = np.random.default_rng(0)
    rates = {"none": 0.0, "coarse": 0.2, "fine": 0.4, "multi": 0.8}
    concept = {arm: (rng.random((60, 2)) < rate).astype(float) for arm, rate in rates.items()}
    cosines = {"coarse~multi": 0.9, "fine~multi": 0.9}
    rules = VerdictRules(0.15, 0.98)
    record = {**decision_record(Evidence(concept, cosines), rules), "budget": None}
    metrics = _metrics(record, [])
    assert metrics["p"] == record["p"] and metrics["p"]["supported"] <= 0.025
    for contrast in record["contrasts"][:2]:
        ends = metrics["primary"][contrast["contrast"]]
        assert ends == {name: contrast[name] for name in ("estimate", "low", "high")}
    concept.pop("none")
    without = {**decision_record(Evidence(concept, cosines), rules), "budget": None}
    untested = _metrics(without, [])
    assert "p" not in untested and "primary" not in untested
