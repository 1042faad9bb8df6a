"""A run with a time limit: it stops at a sealed shard before it, and the same command goes on."""

import time

import pytest
import typer

from loopscope.commands.options import SECONDS_TO_END, _seconds_to_work, seconds_until
from tests.simulated import START_TIME, Simulation, experiment_spec


def running(tmp_path, slots=1, **settings):
    simulation = Simulation(tmp_path / "state", slots=slots, **settings)
    simulation.apply()
    simulation.step_until_running()
    return simulation


def test_a_worker_that_is_short_of_time_ends_the_work_and_a_second_call_does_the_rest(tmp_path):
    first = running(tmp_path)
    first.workers.run_out_of_time()
    for _ in range(5):
        first.step()
        first.clock.advance(1.0)
    assert first.controller.out_of_time
    assert [job.state for job in first.jobs()] == ["pending"], "nothing is started any more"
    assert first.jobs()[0].attempts == 0 and first.jobs()[0].losses == 0
    second = Simulation(tmp_path / "state")
    assert not second.controller.out_of_time
    assert len(second.settle()) == 6 and second.get("france").ready


def test_what_other_workers_do_may_end_before_the_run_does(tmp_path):
    simulation = running(tmp_path, slots=2)
    simulation.apply(experiment_spec(model={"name": "another"}), name="italy")
    for _ in range(5):
        simulation.clock.advance(1.0)
        simulation.step()
    assert len(simulation.workers.assigned) == 2
    simulation.workers.run_out_of_time()
    simulation.step()
    assert not simulation.controller.out_of_time and len(simulation.workers.assigned) == 1
    simulation.workers.complete()
    simulation.step()
    assert simulation.controller.out_of_time and not simulation.workers.assigned


def test_at_the_moment_itself_work_is_over_whatever_runs(tmp_path):
    simulation = running(tmp_path, stop_at=START_TIME + 100)
    assert not simulation.controller.out_of_time
    simulation.clock.advance(100)
    assert simulation.controller.out_of_time and simulation.workers.assigned


def test_no_limit_is_no_limit(tmp_path):
    simulation = running(tmp_path)
    simulation.clock.advance(1e9)
    assert not simulation.controller.out_of_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("4h", 14400.0), ("90", 90.0), ("@1000100", 100.0), ("1970-01-12T13:47:40+00:00", 60.0)],
)
def test_a_limit_is_a_duration_or_a_moment(text, seconds):
    assert seconds_until(text, 1_000_000.0) == seconds


@pytest.mark.parametrize("text", ["soon", "@", "@1e9", "2026-13-01T00:00:00", "18:30", "-4h", ""])
def test_a_limit_that_is_neither_is_refused(text):
    with pytest.raises(ValueError, match="neither a duration nor a moment"):
        seconds_until(text, 1_000_000.0)


def test_a_moment_without_a_zone_is_of_this_machine():
    text = "2026-11-29T18:30:00"
    here = time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    assert seconds_until(text, 0.0) == here


@pytest.mark.parametrize("limit", ["15s", "2020-01-01T00:00:00", "@1"])
def test_a_limit_that_leaves_no_time_to_work_is_refused(limit):
    with pytest.raises(typer.BadParameter, match="leaves no time to work: ending takes up to 15"):
        _seconds_to_work(limit)
    assert _seconds_to_work("1h") == 3600 - SECONDS_TO_END
