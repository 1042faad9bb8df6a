"""What a kubectl user types beside ``get``: delete, wait, logs, watches, top, names of kinds."""

import json
import os
import time

import pytest

from loopscope.state.db import leader, objects
from loopscope.state.processes import process_name
from tests.simulated import Simulation, capture_spec, experiment_spec


@pytest.fixture
def meanwhile(monkeypatch):
    """Let something happen in each pause, then press Ctrl-C."""

    def then(*doings):
        left = list(doings)

        def sleep(_seconds):
            if not left:
                raise KeyboardInterrupt
            left.pop(0)()

        monkeypatch.setattr(time, "sleep", sleep)

    return then


def label(world, name, **labels):
    with world.state.database.write() as connection:
        record = objects.listed(connection, "Experiment")
        spec = next(one.spec for one in record if one.key.name == name)
        key = next(one.key for one in record if one.key.name == name)
        objects.apply(connection, key, spec, now=0.0, labels=labels)


# -- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["france"], ["exp/france"], ["experiment", "france"]])
def test_commands_about_experiments_take_kind_and_name(loopscope, tmp_path, words):
    Simulation(tmp_path / "state").apply()
    said = loopscope("report", *words, "-o", "out.html")
    assert said[0] == 0 and said[1].endswith("/out.html\n")
    written = loopscope("export", *words, "bundle", "--allow-partial")
    assert written[:2] == (0, "bundle: bundle\n")
    assert loopscope("rerun", *words, "--from", "steering")[0] == 0


@pytest.mark.parametrize("command", ["report", "export", "rerun", "labels"])
def test_another_kind_is_refused_by_commands_about_experiments(loopscope, settled, command):
    more = ["bundle"] if command == "export" else []
    for words in (["mapping/france-mapping"], ["mapping", "france"]):
        code, _, err = loopscope(command, *words, *more)
        assert code == 2 and f"{command} is about experiments; a mapping belongs to one" in err


# -- delete --------------------------------------------------------------------------------


def test_objects_are_deleted_by_label_by_kind_and_by_several_names(loopscope, settled):
    for name in ("paris", "rome", "oslo"):
        settled.apply(experiment_spec(), name)
    label(settled, "paris", team="a")
    assert loopscope("delete", "exp", "-l", "team=a")[1] == "experiment/paris deleted\n"
    assert loopscope("delete", "exp", "-l", "team=a")[1].startswith("No experiments found")
    assert loopscope("delete", "exp", "rome", "oslo")[1].count("deleted") == 2
    assert "experiment/france deleted" in loopscope("delete", "experiments", "--all")[1]
    assert loopscope("get", "all", "-o", "name")[1] == ""


def test_nothing_is_deleted_when_one_of_several_cannot_be(loopscope, settled):
    settled.apply(capture_spec(), "alone", "Capture")
    code, out, err = loopscope("delete", "captures", "--all")
    assert (code, out) == (2, "") and "belongs to experiment/france" in err
    assert "capture/alone" in loopscope("get", "cap", "-o", "name")[1]


@pytest.mark.parametrize(
    "words", [["exp"], ["exp", "france", "--all"], ["exp", "--all", "-l", "a=b"], ["--all"]]
)
def test_what_to_delete_must_be_said_in_one_way(loopscope, settled, words):
    assert loopscope("delete", *words)[:2] == (2, "")
    assert loopscope("get", "exp", "-o", "name")[1] == "experiment/france\n"


# -- wait ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("condition=ready=true", "Ready"),
        ("condition=Stalled=False", "Stalled False"),
        ("jsonpath={.metadata.name}=france", ".metadata.name is france"),
        ("jsonpath=.metadata.generation=1", ".metadata.generation is 1"),
        ("jsonpath={.status.observedGeneration}", ".status.observedGeneration is there"),
        ("jsonpath={.status.conditions[?(@.type=='Ready')].status}=True", "True"),
    ],
)
def test_what_holds_ends_a_wait(loopscope, settled, what, words):
    code, out, err = loopscope("wait", "exp", "france", f"--for={what}", "--timeout=0")
    assert (code, err) == (0, "") and out.endswith(f"{words}\n")


@pytest.mark.parametrize(
    "what", ["condition=Ready=False", "jsonpath={.status.summary.gate}=X", "jsonpath=.status.no[0]"]
)
def test_what_does_not_hold_is_waited_for(loopscope, settled, what):
    code, _, err = loopscope("wait", "exp", "france", f"--for={what}", "--timeout=0")
    assert code == 1 and "timed out" in err


def test_a_condition_that_becomes_false_is_waited_for(loopscope, settled, meanwhile):
    meanwhile(lambda: settled.apply(experiment_spec(mapping={"minCosine": 0.35})), settled.step)
    words = ("wait", "exp", "france", "--for=condition=Ready=False", "--timeout=1h")
    assert loopscope(*words)[:2] == (0, "experiment/france: Ready False\n")


@pytest.mark.parametrize("what", ["condition=Ready=Maybe", "jsonpath={.a", "jsonpath={.a}b", "now"])
def test_what_cannot_be_waited_for_is_refused(loopscope, settled, what):
    code, _, err = loopscope("wait", "exp", "france", f"--for={what}")
    assert code == 2 and "expected" in err


# -- logs ----------------------------------------------------------------------------------


@pytest.fixture
def logged(settled):
    """A worker's log about the capture: a line long ago, one now, and a line without a time."""
    with settled.state.database.read() as connection:
        digest = objects.listed(connection, "Capture")[0].wanted_digest[:12]
    settled.state.logs.mkdir(exist_ok=True)
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime())
    lines = [f"2020-01-01 00:00:00 [info] job starts digest={digest}", f"{now} [info] done", "tail"]
    (settled.state.logs / "worker-0.log").write_text("\n".join(lines) + "\n")
    return settled


def test_old_lines_are_left_out_and_times_are_in_utc(loopscope, logged, monkeypatch):
    assert len(loopscope("logs", "cap", "france")[1].splitlines()) == 3
    recent = loopscope("logs", "cap", "france", "--since", "1h")[1].splitlines()
    assert [line.split()[-1] for line in recent] == ["done", "tail"]
    stamped = loopscope("logs", "cap", "france", "--since=1h", "--timestamps")[1].splitlines()
    assert all(line.split()[0].endswith("Z") for line in stamped)
    assert [line.split(maxsplit=1)[1] for line in stamped] == ["[info] done", "tail"]
    none = loopscope("logs", "cap", "france", "--since", "0")[1]
    assert "in that time" in none


# -- watches -------------------------------------------------------------------------------


def test_the_queue_is_watched_until_its_jobs_have_ended(loopscope, tmp_path, meanwhile):
    world = Simulation(tmp_path / "state")
    world.apply(capture_spec(), "cap", "Capture")
    world.step_until_running()
    meanwhile(lambda: None, world.settle)
    code, out, _ = loopscope("queue", "-w")
    lines = out.splitlines()
    assert code == 130 and sum("capture/cap" in line for line in lines) == 1
    assert lines[-1].endswith("succeeded")
    assert loopscope("queue", "-w", "-o", "json")[0] == 2


def test_an_explanation_is_given_again_when_it_is_another(loopscope, tmp_path, meanwhile):
    world = Simulation(tmp_path / "state")
    world.apply(capture_spec(), "cap", "Capture")
    meanwhile(lambda: None, world.settle, lambda: None)
    code, out, _ = loopscope("why", "cap", "cap", "-w")
    first, second = out.split("\n\n")
    assert code == 130 and "capture/cap: resolving" in first and "capture/cap: ready" in second


# -- kinds and workers ---------------------------------------------------------------------


def test_kinds_are_listed_with_their_short_names(loopscope):
    assert "steerings" in loopscope("api-resources")[1]
    assert loopscope("api-resources", "-o", "name")[1].split()[0] == "experiments"
    documents = json.loads(loopscope("api-resources", "-o", "json")[1])
    (capture,) = (one for one in documents if one["kind"] == "Capture")
    assert capture["shortName"] == "cap" and capture["namespaced"] is True


def test_workers_are_shown_with_what_they_hold_and_do(loopscope, tmp_path):
    world = Simulation(tmp_path / "state")
    me = process_name(os.getpid())
    with world.state.database.write() as connection:
        leader.note_worker(connection, me, "cpu", "0123456789abcdef", idle=[me])
    [idle] = json.loads(loopscope("top", "-o", "json")[1])
    assert idle["worker"] == me and idle["model"] == "0123456789ab" and idle["job"] is None
    assert idle["memoryBytes"] > 0 and idle["processorSeconds"] > 0
    assert "idle" in loopscope("top")[1]


def test_workers_that_are_gone_are_not_shown(loopscope, settled):
    with settled.state.database.write() as connection:
        leader.note_worker(connection, "1@gone", "cpu", None, idle=["1@gone"])
    assert loopscope("top")[1] == "No workers.\n"
