"""Every view says what the queue says, also where no controller is there to write it down."""

import json
import os
import time

import pytest

import loopscope as door
from loopscope.state.db import jobs, leader, objects
from loopscope.state.processes import process_name
from loopscope.views.experiment import ExperimentView
from loopscope.views.present import present
from tests.simulated import Simulation

GONE = "999999999@1.00"
"""A name that no process has."""


@pytest.fixture
def running(tmp_path):
    """An experiment whose capture ran, by what the status says, when its controller ended."""
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    simulation.step_until_running()
    simulation.step()
    assert simulation.reason("france-capture") == "JobRunning"
    return simulation


def job_of(simulation):
    with simulation.state.database.read() as connection:
        (job,) = jobs.running(connection)
    return job


def released(simulation):
    """Give the job back, as a worker does whose controller is gone."""
    job = job_of(simulation)
    with simulation.state.database.write() as connection:
        jobs.release(connection, job.id, job.token)


def lost(simulation):
    """Leave the job with a worker that was killed together with its controller."""
    released(simulation)
    with simulation.state.database.write() as connection:
        (job,) = jobs.listed(connection)
        jobs.claim(connection, job.id, GONE, 30.0, now=time.time())


def views(loopscope):
    """Return the words of ``get``, ``queue``, ``why`` and Python about the capture, and its reason
    as ``describe`` and ``get -o json`` tell it."""
    table = loopscope("get", "exp")[1].splitlines()[1].split()
    reason = json.loads(loopscope("get", "cap", "france", "-o", "json")[1])["status"]["conditions"]
    described = loopscope("describe", "cap", "france")[1]
    queue = json.loads(loopscope("queue", "-o", "json")[1])
    why = json.loads(loopscope("why", "cap", "france", "-o", "json")[1])
    python = door.open("state").experiments.table()
    assert reason[0]["reason"] in described and python.loc["france", "capture"] == table[1]
    states = [job["state"] for job in queue["jobs"]]
    return table[1], reason[0]["reason"], states, why["chain"][0]["state"], why["who"]


def test_an_interrupted_job_runs_nowhere(loopscope, running):
    released(running)
    assert views(loopscope) == ("Queued", "JobPending", ["pending"], "queued", "you")
    slots = json.loads(loopscope("queue", "-o", "json")[1])["slots"]
    assert slots["cpu"]["taken"] == 0


def test_a_job_whose_worker_was_killed_runs_nowhere(loopscope, running):
    lost(running)
    assert views(loopscope) == ("Retrying", "RetryingLater", ["pending"], "queued", "you")
    slots = json.loads(loopscope("queue", "-o", "json")[1])["slots"]
    assert slots["cpu"]["taken"] == 0
    assert "its worker is gone" in loopscope("describe", "cap", "france")[1]


def test_a_job_that_was_cancelled_without_a_controller_needs_somebody(loopscope, running):
    loopscope("cancel", "cap", "france")
    assert views(loopscope) == ("Stalled", "Cancelled", [], "stalled", "you")
    names, cells = (line.split() for line in loopscope("get", "exp")[1].splitlines()[:2])
    table = dict(zip(names, cells, strict=True))
    assert "EVIDENCE" not in table, "the spec does not ask for it"
    stages = ["CAPTURE", "COARSE", "FINE", "MAPPING", "STEERING"]
    assert [table[stage] for stage in stages] == ["Stalled"] * 5, "what rests on it stands, too"
    assert "retry capture france-capture" in loopscope("describe", "exp", "france")[1]
    loopscope("wait", "cap", "france", "--for=condition=Stalled", "--timeout", "1s")


def test_what_was_retried_without_a_controller_is_queued(loopscope, running):
    loopscope("cancel", "cap", "france")
    running.step()
    assert running.get("france-capture").stalled
    loopscope("retry", "cap", "france")
    assert views(loopscope) == ("Queued", "JobPending", ["pending"], "queued", "you")


def test_what_was_paused_without_a_controller_is_suspended(loopscope, running):
    released(running)
    loopscope("pause", "exp", "france")
    assert loopscope("get", "exp")[1].splitlines()[1].split()[1] == "Suspended"
    assert "resume" in loopscope("describe", "exp", "france")[1]


def test_what_waits_says_what_it_waits_for_now(loopscope, running):
    released(running)
    for words in (("queue",), ("describe", "dec", "france-coarse"), ("why", "exp", "france")):
        assert "is running" not in loopscope(*words)[1], words


def test_a_report_says_so_too(running):
    lost(running)
    view = ExperimentView.load(running.state, running.get("france").key)
    assert "its worker is gone" in view.stage("capture").problem
    assert not [stage for stage in view.stages.values() if "is running" in stage.problem]


def test_beside_a_living_controller_its_own_words_stand(running):
    released(running)
    with running.state.database.write() as connection:
        leader.announce(connection, process_name(os.getpid()), {}, now=0.0)
        stored = objects.listed(connection)
        shown = present(connection, stored)
    cause = _said(stored[0])
    assert "is running" in cause, "the capture, on which all the rest waits"
    for before, after in zip(stored, shown, strict=True):
        if before.status.condition("Ready").reason == "InputsNotReady":
            assert _said(after).startswith(_said(before)) and _said(after).endswith(f": {cause}")
        else:
            assert after == before


def test_nothing_is_written_and_the_next_controller_says_the_same(loopscope, running):
    released(running)
    before = running.rows()
    with running.state.database.read() as connection:
        told = {r.key: r.status.conditions for r in present(connection, objects.listed(connection))}
    assert running.rows() == before
    running.restart()
    running.step()
    with running.state.database.write() as connection:
        leader.announce(connection, process_name(os.getpid()), {}, now=0.0)
        now = {r.key: r.status.conditions for r in present(connection, objects.listed(connection))}
    assert {key: _words(c) for key, c in told.items()} == {key: _words(c) for key, c in now.items()}


def _said(record):
    return record.status.condition("Ready").message


def _words(conditions):
    return [(c.type, c.status, c.reason, c.message) for c in conditions]
