"""Jobs that no node could hold: they say so at once, wait, and go on by themselves."""

from __future__ import annotations

import pytest

from loopscope.controller.jobs.queue_view import read_view
from loopscope.specs.keys import MEMORY_ANNOTATION
from loopscope.state.db import objects
from loopscope.views.jobs import job_detail
from tests.simulated import Simulation, capture_spec

NODE_BYTES = 8_000_000_000


@pytest.fixture
def capture(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply(capture_spec(), "cap", "Capture")
    simulation.workers.lacking = "the cluster has no node with memory 9,000,000,000 bytes"
    simulation.workers.memory_bytes_max = NODE_BYTES
    return simulation


def test_a_job_that_fits_a_node_starts(capture):
    capture.step_until_running()
    assert capture.workers.assigned


def test_one_that_fits_none_starts_nowhere_and_its_object_says_what_is_missing(capture):
    capture.workers.memory_bytes_max = -1
    for _ in range(3):
        capture.step()
        capture.clock.advance(1)
    assert capture.workers.assigned == {}
    assert capture.reason("cap") == "Unplaceable"
    assert "no node with memory 9,000,000,000" in capture.words()["cap"]
    assert not capture.get("cap").stalled
    (job,) = capture.jobs()
    assert "no node with memory" in job_detail(job, None, now=0.0)


def test_the_need_is_that_of_the_object(capture):
    record = capture.get("cap")
    with capture.state.database.write() as connection:
        objects.annotate(connection, record, MEMORY_ANNOTATION, "9GB")
    capture.step(), capture.step()
    assert capture.reason("cap") == "Unplaceable" and capture.workers.assigned == {}
    with capture.state.database.write() as connection:
        objects.annotate(connection, capture.get("cap"), MEMORY_ANNOTATION, "7GB")
    capture.step_until_running()
    assert capture.workers.assigned


def test_the_queue_says_it_as_well(capture):
    capture.workers.memory_bytes_max = -1
    capture.step()
    with capture.state.database.read() as connection:
        view = read_view(connection, capture.state.path, capture.settings, capture.clock.now())
    (job,) = view.jobs
    assert job.waiting is not None and job.waiting.reason == "Unplaceable"


def test_when_a_node_comes_that_has_it_the_job_starts_by_itself_and_has_lost_nothing(capture):
    capture.workers.memory_bytes_max = -1
    capture.step()
    capture.workers.memory_bytes_max = NODE_BYTES
    capture.step_until_running()
    (job,) = capture.jobs()
    assert (job.state, job.attempts, job.losses) == ("running", 0, 0)


def test_marks_of_a_controller_with_another_executor_are_taken_off(capture):
    capture.workers.memory_bytes_max = -1
    capture.step()
    capture.workers.memory_bytes_max = float(
        "inf"
    )  # as processes of this machine, which refuse none
    capture.restart()
    capture.step_until_running()
    assert capture.workers.assigned


def test_a_converged_queue_of_refused_jobs_writes_nothing(capture):
    capture.workers.memory_bytes_max = -1
    capture.step(), capture.step()
    before = capture.state.database.marker()
    capture.step()
    assert capture.state.database.marker() == before
