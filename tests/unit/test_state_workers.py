"""What any process can say about a worker from its name."""

import os
from dataclasses import replace

import pytest

from loopscope.state.db import jobs
from loopscope.state.log_files import log_before
from loopscope.state.processes import process_name
from loopscope.state.workers import (
    WORKER_GONE,
    log_path,
    log_paths,
    without_lost_worker,
    worker_lives,
)
from tests.simulated import Simulation, capture_spec


@pytest.fixture
def running(tmp_path):
    simulation = Simulation(tmp_path / "running")
    simulation.apply(capture_spec(), "cap", "Capture")
    simulation.step_until_running()
    (job,) = [job for job in simulation.jobs() if job.state == "running"]
    with simulation.state.database.read() as connection:
        return jobs.head(connection, job.id)


def test_a_worker_named_after_a_process_lives_while_that_does_and_of_others_nothing_is_known():
    assert worker_lives(process_name(os.getpid())) is True
    assert worker_lives("1@0") is False
    assert worker_lives("node-7/worker-3") is None
    assert worker_lives("") is None


def test_a_running_job_whose_worker_is_gone_counts_as_waiting(running):
    lost = without_lost_worker(replace(running, worker="1@0"))
    assert (lost.state, lost.reason, lost.message) == ("pending", "WorkerLost", WORKER_GONE)
    for other in (
        replace(running, worker=process_name(os.getpid())),
        replace(running, worker="node-7/worker-3"),
        replace(running, worker="1@0", state="failed"),
    ):
        assert without_lost_worker(other) == other


def test_the_logs_of_all_slots_are_listed_without_those_before(tmp_path):
    paths = [log_path(tmp_path, slot) for slot in (0, 1)]
    for path in (*paths, log_before(paths[0])):
        path.touch()
    assert log_paths(tmp_path) == paths
