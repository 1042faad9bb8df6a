"""``-w``, ``logs`` and progress: what is going on, as it goes."""

import time

import pytest

from loopscope.state.db import jobs, objects
from loopscope.state.records import Progress
from loopscope.terminal import watching
from loopscope.terminal.watching import WatchedTable, changes_of
from loopscope.views.worker_logs import WorkerLogReader
from tests.simulated import Simulation, capture_spec, experiment_spec


@pytest.fixture
def interrupted(monkeypatch):
    """Let time pass for a while, doing something each time, then press Ctrl-C."""

    def after(*doings):
        left = list(doings)

        def sleep(seconds):
            if not left:
                raise KeyboardInterrupt
            left.pop(0)()

        monkeypatch.setattr(time, "sleep", sleep)

    return after


# -- get -w ------------------------------------------------------------------------------------


def test_get_watch_prints_what_changes_and_nothing_else(settled, loopscope, interrupted):
    def edit():
        settled.apply(experiment_spec(mapping={"minCosine": 0.35}))
        settled.settle()

    interrupted(lambda: None, edit, lambda: None, settled.delete)
    code, out, _ = loopscope("get", "mappings", "-w", "-o", "wide")
    head, first, second, gone = out.splitlines()
    assert code == 130 and head.split()[-1] == "PROGRESS"
    assert first.startswith("france-mapping") and second.startswith("france-mapping")
    assert first != second and gone == "mapping/france-mapping deleted"


def test_get_watch_begins_a_table_anew_where_a_column_comes(settled, loopscope, interrupted):
    other = experiment_spec(matrix={"cut": {"low": {"mapping.minCosine": 0.3}}})
    interrupted(lambda: None, lambda: settled.apply(other, "sweep"), lambda: None)
    code, out, err = loopscope("get", "experiments", "-w")
    assert code == 130, err
    heads = [line for line in out.splitlines() if line.startswith("NAME")]
    assert ["BEST" in head for head in heads] == [False, True]
    assert out.count("\nfrance ") == 1, "what did not change is not said again"


def test_get_watch_in_another_form_prints_each_changed_object(settled, loopscope, interrupted):
    interrupted(lambda: settled.apply(experiment_spec(gate={"policy": "enforce"})), lambda: None)
    template = "jsonpath={.metadata.name} {.metadata.generation}"
    _, out, _ = loopscope("get", "experiments", "-w", "-o", template)
    assert out.splitlines() == ["france 1", "france 2"]


def test_a_name_that_does_not_exist_is_told_before_anything_is_watched(settled, loopscope):
    code, _, err = loopscope("get", "mapping", "italy", "-w")
    assert code == 1 and "no mapping named 'italy'" in err


def test_changes_are_told_once(settled, interrupted):
    def captures(connection):
        return objects.listed(connection, "Capture")

    stream = changes_of(settled.state, captures)
    interrupted(lambda: None, lambda: settled.apply(capture_spec(), "cap", "Capture"))
    assert [[r.key.name for r in next(stream)] for _ in range(2)] == [["france-capture"], ["cap"]]
    with pytest.raises(KeyboardInterrupt):
        next(stream)


def test_progress_is_shown_while_a_job_runs_but_not_more_often_than_stated(tmp_path, monkeypatch):
    world = Simulation(tmp_path / "state")
    world.apply(capture_spec(), "cap", "Capture")
    world.step_until_running()
    clock = [100.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: clock[0])

    def captures(connection):
        return objects.listed(connection, "Capture")

    def reach(done, tokens=None):
        ((job, token),) = world.workers.assigned.values()
        seen = Progress(job, "Capturing", done, 40, "prompts", 90.0, 100.0, tokens)
        with world.state.database.write() as connection:
            jobs.report_progress(connection, job, token, seen)

    table = WatchedTable(world.state, "Capture", "default", captures)
    reach(10)
    _, line = table.lines()
    assert "Capturing 10/40 prompts, 1.0 prompts/s, 30s left" in line
    reach(11, tokens=550)
    assert list(table.lines()) == []
    clock[0] += 6
    assert "Capturing 11/40 prompts, 55 tokens/s, " in next(iter(table.lines()))


# -- get -o and -l ------------------------------------------------------------------------------


def test_get_prints_parts_of_objects(settled, loopscope):
    gate = "jsonpath={.status.summary.gate}"
    assert loopscope("get", "experiment", "france", "-o", gate)[1] == "GO\n"
    names = 'jsonpath={range .items[*]}{.metadata.name}{"\\n"}{end}'
    assert "france-coarse\nfrance-fine\n" in loopscope("get", "decompositions", "-o", names)[1]
    code, _, err = loopscope("get", "experiments", "-o", "jsonpath={.a")
    assert code == 2 and "a brace is not closed" in err


def test_get_selects_by_sets(settled, loopscope):
    label = "loopscope.dev/experiment"
    _, out, _ = loopscope("get", "captures", "-l", f"{label} in (france, italy)", "-o", "name")
    assert out == "capture/france-capture\n"
    assert loopscope("get", "captures", "-l", f"!{label}", "-o", "name")[1] == ""
    code, _, err = loopscope("get", "captures", "-l", "a in b")
    assert code == 2 and "no selector" in err


# -- events -w -----------------------------------------------------------------------------------


def test_events_watch_prints_what_happens(settled, loopscope, interrupted):
    interrupted(lambda: settled.apply(experiment_spec(mapping={"minCosine": 0.5})), settled.step)
    code, out, _ = loopscope("events", "-w")
    before, _ = loopscope("events")[1], None
    assert code == 130
    assert "JobQueued" in out.splitlines()[-1] or "Configured" in out.splitlines()[-1]
    assert len(out.splitlines()) >= len(before.splitlines())


# -- logs ------------------------------------------------------------------------------------------

LINES = """importing torch
\x1b[2m2026-11-22\x1b[0m [info] job starts  \x1b[36mdigest\x1b[0m=aaaaaaaaaaaa job=1 stage=capture
one of a
2026-11-22 [info] job starts  digest=bbbbbbbbbbbb job=2 stage=mapping
one of b \x07
"""


def test_a_line_belongs_to_the_job_that_was_started_last(tmp_path):
    log = tmp_path / "worker-0.log"
    log.write_text(LINES)
    reader = WorkerLogReader(log)
    assert list(reader.new_lines({"a" * 64}))[-1] == "one of a"
    with log.open("a") as stream:
        stream.write("two of b\nhalf a li")
    assert list(reader.new_lines({"b" * 64})) == ["two of b"]
    with log.open("a") as stream:
        stream.write("ne\n")
    assert list(reader.new_lines({"b" * 64})) == ["half a line"]
    again = list(WorkerLogReader(log).new_lines({"b" * 64}))
    assert again[1:] == ["one of b \x07", "two of b", "half a line"]


def test_a_log_that_moved_away_is_read_on_from_its_start(tmp_path):
    log = tmp_path / "worker-0.log"
    log.write_text(LINES)
    reader = WorkerLogReader(log)
    list(reader.new_lines(set()))
    log.rename(tmp_path / "worker-0.log.1")
    log.write_text("three of b\n")
    assert list(reader.new_lines({"b" * 64})) == ["three of b"]
    assert "one of a" in list(WorkerLogReader(log).new_lines({"a" * 64}))


def test_logs_prints_what_was_written_about_an_objects_jobs(settled, loopscope):
    digest = settled.get("france-mapping").wanted_digest[:12]
    settled.state.logs.mkdir(exist_ok=True)
    start = f"[info] job starts  digest={digest} job=4 stage=mapping"
    (settled.state.logs / "worker-0.log").write_text(f"{start}\nmapped\nall\n")
    assert loopscope("logs", "mapping", "france")[1] == f"{start}\nmapped\nall\n"
    assert loopscope("logs", "experiment", "france", "--tail", 1)[1] == "all\n"
    assert "nothing was written" in loopscope("logs", "capture", "france")[1]
    assert loopscope("logs", "mapping", "france", "-f")[1] == f"{start}\nmapped\nall\n"
    assert loopscope("logs", "mapping")[0] == 2 and loopscope("logs", "mapping", "x")[0] == 1
