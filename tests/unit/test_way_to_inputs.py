"""A job starts with the way to its inputs that its object would name now, wherever it waited."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from loopscope.specs.actions import CODE_REVISIONS, Action
from loopscope.specs.keys import Key
from loopscope.state.db import job_ways, jobs, pauses
from tests.simulated import Simulation, capture_spec, experiment_spec

CAP = Key("Capture", "default", "cap")


def paused(simulation, scope):
    with simulation.state.database.write() as connection:
        pauses.pause(connection, scope, now=simulation.clock.now())


def resumed(simulation, scope):
    with simulation.state.database.write() as connection:
        pauses.resume(connection, scope)


def stepped(simulation, seconds=11.0, steps=4):
    """Let a resync and what follows from it happen, without any job being done."""
    simulation.clock.advance(seconds)
    for _ in range(steps):
        simulation.step()


def started(simulation):
    """Return the running job's payload."""
    (job,) = [job for job in simulation.jobs() if job.state == "running"]
    return job.payload


@pytest.fixture
def before_steering(tmp_path):
    """An experiment whose steering job waits."""
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    simulation.step()
    paused(simulation, "stage/steering")
    for _ in range(20):
        simulation.step()
        simulation.workers.complete()
        simulation.clock.advance(0.5)
    assert [job.stage for job in simulation.jobs() if job.state == "pending"] == ["steering"]
    return simulation


def test_a_job_that_waited_starts_on_the_way_of_now(before_steering):
    model, fine = (before_steering.inputs.move(name) for name in ("tiny", "/fine"))
    stepped(before_steering)
    resumed(before_steering, "stage/steering")
    before_steering.step_until_running()
    payload = started(before_steering)
    assert payload["model"]["folder"] == model
    assert payload["fine"]["dictionary"]["folder"] == fine
    before_steering.settle()
    assert before_steering.get("france").ready


def test_a_job_waits_while_what_it_rests_on_still_says_the_old_way(before_steering):
    """The new place is known, and the capture was not looked at since."""
    before_steering.inputs.move("tiny")
    resumed(before_steering, "stage/steering")
    with before_steering.state.database.write() as connection:
        (reference,) = [
            one for one in before_steering.controller._dependants.inputs() if one.kind == "model"
        ]
        before_steering.inputs.resolve(reference).record(connection, before_steering.clock.now())
    before_steering.controller._reconcile_due = lambda: None
    before_steering.step()
    assert not before_steering.workers.assigned
    del before_steering.controller._reconcile_due
    before_steering.settle()
    assert before_steering.get("france").ready


@pytest.fixture
def running(tmp_path):
    """A capture whose job runs."""
    simulation = Simulation(tmp_path / "state")
    simulation.apply(capture_spec(), "cap", "Capture")
    simulation.step_until_running()
    return simulation


def the_worker_stops(simulation):
    with simulation.state.database.write() as connection:
        (job,) = jobs.running(connection)
        jobs.release(connection, job.id, job.token)
    simulation.workers.kill(job.worker)


def the_worker_dies(simulation):
    simulation.workers.die()


def the_input_was_damaged(simulation):
    with simulation.state.database.write() as connection:
        (job,) = jobs.running(connection)
        until = simulation.clock.now() + 5
        jobs.postpone(connection, job.id, job.token, "InputDamaged", "again", until=until)
    simulation.workers.kill(job.worker)


def the_attempt_fails(simulation):
    simulation.workers.failures["capture"] = ("Odd", True)
    simulation.workers.complete()
    simulation.workers.failures.clear()


@pytest.mark.parametrize(
    "returns", [the_worker_stops, the_worker_dies, the_input_was_damaged, the_attempt_fails]
)
def test_a_running_job_that_comes_back_goes_on_on_the_way_of_now(running, returns):
    old = started(running)["model"]["folder"]
    new = running.inputs.move("tiny")
    stepped(running)
    assert started(running)["model"]["folder"] == old, "it goes on as long as it runs"
    returns(running)
    running.clock.advance(20)
    running.step_until_running()
    assert started(running)["model"]["folder"] == new
    running.settle()
    assert running.get("cap").ready
    assert len(running.jobs()) == 1


def failed_on_the_old_way(simulation):
    """Let the model move while its job runs, unseen; return what the object says then."""
    simulation.inputs.move("tiny")
    simulation.workers.complete()
    simulation.step()
    return simulation.reason("cap")


def test_a_job_that_failed_on_an_old_way_is_tried_again_on_the_new_one_by_itself(running):
    assert failed_on_the_old_way(running) == "InputChanged"
    assert running.get("cap").stalled
    running.resync()
    assert running.get("cap").ready


def test_a_job_that_failed_on_the_way_of_now_waits_for_a_human(running):
    running.workers.failures["capture"] = ("Odd", False)
    running.settle()
    running.workers.failures.clear()
    running.resync()
    assert running.get("cap").stalled and len(running.jobs()) == 1


def test_a_job_that_is_retried_by_hand_starts_on_the_way_of_now(running):
    failed_on_the_old_way(running)
    with running.state.database.write() as connection:
        jobs.retry(connection, running.jobs()[0].id, now=running.clock.now())
    stepped(running)
    running.step_until_running()
    assert started(running)["model"]["folder"] == "/cache/tiny'"


# -- two objects that want the same work on ways of their own ---------------------------


def other_way():
    """The spec of the same capture, with the same model in another folder."""
    return capture_spec(model={"name": "copy", "source": {"folder": "/models/copy"}})


@pytest.fixture
def shared(tmp_path):
    """Two captures that share a digest; the job that waits was queued by the first."""
    simulation = Simulation(tmp_path / "state")
    simulation.inputs.identity["copy"] = "tiny"
    paused(simulation, "all")
    simulation.apply(capture_spec(), "cap", "Capture")
    stepped(simulation)
    simulation.apply(other_way(), "copy", "Capture")
    stepped(simulation)
    assert simulation.get("cap").wanted_digest == simulation.get("copy").wanted_digest
    assert [job.object for job in simulation.jobs()] == [CAP]
    return simulation


def test_a_job_whose_object_is_deleted_goes_the_way_of_the_one_that_is_left(shared):
    shared.delete("cap", "Capture")
    shared.inputs.gone.add("/cache/tiny")
    resumed(shared, "all")
    shared.settle()
    assert shared.get("copy").ready
    assert [job.object.name for job in shared.jobs()] == ["copy"]


def test_a_job_whose_objects_inputs_are_refused_goes_the_way_of_the_other(shared):
    shared.inputs.gone.add("/cache/tiny")
    gone = {"reason": "InputRefused", "message": "nothing there", "terminal": True}
    shared.inputs.answers["tiny"] = gone
    stepped(shared)
    resumed(shared, "all")
    shared.settle()
    assert shared.get("copy").ready and shared.get("cap").stalled


def test_a_failure_on_one_objects_way_is_no_failure_of_the_others(shared):
    shared.inputs.gone.add("/cache/tiny")  # nobody has looked yet
    resumed(shared, "all")
    shared.settle()
    assert shared.get("copy").ready and shared.get("cap").ready, "the content is the same"
    assert [job.state for job in shared.jobs()] == ["failed", "succeeded"]


def test_two_ways_that_both_fail_are_each_tried_once(shared):
    shared.inputs.gone.update(["/cache/tiny", "/cache/copy"])
    resumed(shared, "all")
    shared.settle()
    for _ in range(3):
        shared.resync()
    assert [job.state for job in shared.jobs()] == ["failed", "failed"]
    assert shared.get("copy").stalled and shared.get("cap").stalled


def test_what_was_cancelled_by_hand_stays_cancelled_when_its_input_moves(running):
    with running.state.database.write() as connection:
        jobs.cancel(connection, running.jobs()[0].id, "Cancelled", "by hand", now=1.0)
    running.workers.die()
    running.inputs.move("tiny")
    running.resync()
    assert running.get("cap").stalled and len(running.jobs()) == 1


# -- nobody orders it any more ----------------------------------------------------------


def test_an_edit_between_the_look_and_the_claim_is_seen(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply(capture_spec(), "cap", "Capture")
    paused(simulation, "all")
    stepped(simulation)
    moved = capture_spec(model={"name": "copy", "source": {"folder": "/models/copy"}})
    simulation.inputs.identity["copy"] = "tiny"
    find_worker, outcomes = simulation.workers.free_worker, []

    def edited_meanwhile(place, memory_bytes):
        outcomes.append(simulation.apply(moved, "cap", "Capture"))
        return find_worker(place, memory_bytes)

    simulation.workers.free_worker = edited_meanwhile
    resumed(simulation, "all")
    simulation.settle()
    assert outcomes[0] == "configured", "the edit came between"
    assert [job.payload["model"]["folder"] for job in simulation.jobs()] == ["/cache/copy"]


def test_a_job_that_an_older_code_revision_names_is_not_started(tmp_path, monkeypatch):
    simulation = Simulation(tmp_path / "state")
    simulation.apply(capture_spec(), "cap", "Capture")
    paused(simulation, "all")
    stepped(simulation)
    (old,) = simulation.jobs()
    monkeypatch.setitem(CODE_REVISIONS, "capture", CODE_REVISIONS["capture"] + 1)
    simulation.restart()
    resumed(simulation, "all")
    simulation.controller._reconcile_due = lambda: None  # it comes to that later
    simulation.controller._cancel_unwanted_jobs = lambda: None
    simulation.step()
    assert not simulation.workers.assigned
    del simulation.controller._reconcile_due
    del simulation.controller._cancel_unwanted_jobs
    simulation.settle()
    ended = {job.id: (job.state, job.code_revision) for job in simulation.jobs()}
    new = CODE_REVISIONS["capture"]
    assert ended == {old.id: ("cancelled", new - 1), old.id + 1: ("succeeded", new)}


def test_renewing_touches_no_job_that_runs_or_that_another_digest_names(running):
    (job,) = running.jobs()
    same = SimpleNamespace(stage="capture", digest=job.digest, payload={}, code_revision=9)
    with running.state.database.write() as connection:
        job_ways.renew(connection, job.id, same, CAP, 9)
        job_ways.renew(connection, job.id, Action("capture", {"n": 1}, {}), CAP, 9)
    assert running.jobs() == [job]


def test_an_experiment_that_shares_all_its_work_is_ready_when_the_other_ones_files_are_gone(
    tmp_path,
):
    simulation = Simulation(tmp_path / "state")
    simulation.inputs.identity.update({"copy": "tiny", "/c": "/coarse", "/f": "/fine"})
    paused(simulation, "stage/mapping")
    simulation.apply()
    elsewhere = {"coarse": {"path": "/c"}, "fine": {"path": "/f"}}
    model = {"name": "copy", "source": {"folder": "/models/copy"}}
    simulation.apply(experiment_spec(model=model, dictionaries=elsewhere), "again")
    for _ in range(20):
        simulation.step()
        simulation.workers.complete()
        simulation.clock.advance(0.5)
    gone = {"reason": "InputRefused", "message": "nothing there", "terminal": True}
    for name in ("tiny", "/coarse", "/fine"):
        simulation.inputs.gone.add(f"/cache/{name}")
        simulation.inputs.answers[name] = gone
    stepped(simulation)
    resumed(simulation, "stage/mapping")
    simulation.settle()
    assert simulation.get("again").ready and not simulation.get("france").ready
