"""What a controller does whose workers hold other code than it knows."""

from __future__ import annotations

import pytest

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.views.jobs import job_detail
from tests.simulated import Simulation, capture_spec


@pytest.fixture
def upgraded(tmp_path):
    """A capture whose job a worker has just refused."""
    simulation = Simulation(tmp_path / "state")
    simulation.workers.code = "another"
    simulation.apply(capture_spec(), "cap", "Capture")
    simulation.step_until_running()
    simulation.workers.complete()
    simulation.step()
    return simulation


def tries_within(simulation, seconds):
    """Return how often jobs are handed out, when the clock goes on second by second."""
    before = len(simulation.workers.orders)
    for _ in range(seconds):
        simulation.clock.advance(1)
        simulation.step()
        simulation.workers.complete()
    return len(simulation.workers.orders) - before


def test_a_refused_job_waits_and_the_object_asks_for_a_restart(upgraded):
    (job,) = upgraded.jobs()
    assert (job.state, job.attempts, job.losses) == ("pending", 0, 0)
    assert upgraded.words()["cap"].startswith("False CodeChanged: capture job 1 waits: ")
    assert "Restart it" in upgraded.words()["cap"]
    assert "CodeChanged" in upgraded.event_reasons("cap")
    assert "CodeChanged" in job_detail(job, None, now=0.0)
    assert not upgraded.get("cap").stalled


def test_a_controller_that_is_refused_again_and_again_tries_twice_a_minute(upgraded):
    assert tries_within(upgraded, 300) == 10
    (job,) = upgraded.jobs()
    assert (job.state, job.attempts, job.losses) == ("pending", 0, 0)


def test_it_goes_on_by_itself_when_the_files_are_as_they_were(upgraded):
    upgraded.workers.code = None
    upgraded.clock.advance(31)
    assert upgraded.settle() == ["capture"]
    assert upgraded.get("cap").ready


def test_a_controller_that_was_started_again_waits_for_nothing(upgraded):
    upgraded.workers.code = None
    upgraded.restart()
    upgraded.step_until_running()
    upgraded.settle()
    assert upgraded.get("cap").ready and len(upgraded.jobs()) == 1


def test_a_controller_that_was_started_again_names_the_work_anew(upgraded, monkeypatch):
    upgraded.workers.code = None
    monkeypatch.setitem(CODE_REVISIONS, "capture", CODE_REVISIONS["capture"] + 1)
    upgraded.restart()
    upgraded.settle()
    assert upgraded.get("cap").ready
    assert [job.state for job in upgraded.jobs()] == ["cancelled", "succeeded"]


def test_a_worker_of_another_revision_refuses_too(tmp_path, monkeypatch):
    simulation = Simulation(tmp_path / "state")
    simulation.apply(capture_spec(), "cap", "Capture")
    simulation.step_until_running()
    monkeypatch.setitem(CODE_REVISIONS, "capture", CODE_REVISIONS["capture"] + 1)
    simulation.workers.complete()
    (job,) = simulation.jobs()
    assert (job.state, job.reason) == ("pending", "CodeChanged")
    assert not list(simulation.state.artifacts.root.glob("capture/*"))


def test_a_job_that_waits_for_another_cause_asks_for_no_restart(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.workers.failures["capture"] = ("HubBusy", True)
    simulation.apply(capture_spec(), "cap", "Capture")
    simulation.step_until_running()
    simulation.workers.complete()
    simulation.step()
    (job,) = simulation.jobs()
    assert (job.state, job.reason) == ("pending", "HubBusy")
    assert "CodeChanged" not in simulation.event_reasons("cap")
