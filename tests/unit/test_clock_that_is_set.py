"""Somebody sets the clock, or the machine stands still: nothing is late, lost or let through."""

import shutil

import pytest

from loopscope.controller.clock import SystemClock, Turns
from loopscope.state.clock_reading import ClockReading
from loopscope.state.db import clock_repair, jobs
from loopscope.state.failpoints import handled_by
from loopscope.state.processes import process_exists, process_name
from loopscope.state.retry_policy import RetryPolicy
from tests.simulated import Simulation, VirtualClock, capture_spec

HOUR = 3600.0
LIMIT = 3


@pytest.fixture
def busy(tmp_path):
    """Twelve captures, of which three may start in a minute."""
    simulation = Simulation(tmp_path / "state", job_starts_per_minute=LIMIT)
    for number in range(12):
        prompts = {
            name: {"texts": [f"{name} {number}", f"a {name}"]} for name in ("target", "neutral")
        }
        simulation.apply(capture_spec(prompts=prompts), f"cap-{number}", "Capture")
    return simulation


def starts_within(simulation, seconds):
    """Let workers work for so long; return when jobs started, on the clock nobody can set."""
    began, seen, known = simulation.clock.elapsed(), [], {job.token for job in simulation.jobs()}
    while simulation.clock.elapsed() < began + seconds:
        simulation.step()
        new = {job.token for job in simulation.jobs() if job.token} - known
        known |= new
        seen += [simulation.clock.elapsed()] * len(new)
        simulation.workers.complete()
        simulation.clock.advance(1.0)
    return seen


@pytest.mark.parametrize("seconds", [-HOUR, -30.0, -2.0, 2.0, 30.0, HOUR])
@pytest.mark.parametrize("restart", [False, True], ids=["same controller", "another controller"])
def test_the_limit_of_starts_holds_and_holds_up_nothing_whatever_the_date(busy, seconds, restart):
    first = starts_within(busy, 30)
    assert len(first) == LIMIT
    busy.clock.set(seconds)
    if restart:
        busy.restart()
    times = first + starts_within(busy, 60)
    assert len(times) == 2 * LIMIT, "the next ones start a minute after the first, not later"
    assert times[LIMIT] - times[0] >= 60.0, "and not sooner"


def test_after_a_restart_of_the_machine_starts_in_the_future_hold_up_for_a_minute_at_most(
    busy, monkeypatch
):
    first = starts_within(busy, 30)
    busy.clock.set(-HOUR)

    def reading():
        return ClockReading(busy.clock.now(), busy.clock.elapsed() - 999_000, "another start")

    monkeypatch.setattr(busy.clock, "reading", reading)
    times = first + starts_within(busy, 61)
    assert len(times) > LIMIT and times[LIMIT] - times[0] >= 60.0


def test_a_pause_before_the_next_try_is_cut_when_the_clock_was_set_back(busy):
    busy.workers.failures["capture"] = ("Odd", True)
    busy.step_until_running()
    busy.workers.complete()
    busy.workers.failures.clear()
    busy.clock.set(-HOUR)
    busy.clock.advance(61.0)  # the limit of starts
    busy.step()
    longest = RetryPolicy().pause_seconds_max(1)
    waits = [j.not_before - busy.clock.now() for j in busy.jobs() if j.state == "pending"]
    assert max(waits) <= longest < HOUR
    assert all(j.created_at <= busy.clock.now() for j in busy.jobs() if j.state == "pending")


def test_a_job_that_never_failed_waits_for_no_date(capture):
    capture.step_until_running()
    capture.workers.complete()
    with capture.state.database.write() as connection:
        jobs.retry(connection, capture.jobs()[0].id, now=capture.clock.now() + HOUR)
    clock, policy = capture.clock.reading(), RetryPolicy()
    with capture.state.database.write() as connection:
        assert clock_repair.is_due(connection, clock, policy)
        clock_repair.put_right(connection, clock, policy)
        assert not clock_repair.is_due(connection, clock, policy), (
            "and a second time changes nothing"
        )
    assert capture.jobs()[-1].not_before <= capture.clock.now()


def test_a_job_that_waits_as_long_as_its_failures_ask_for_is_left_as_it_is(capture):
    capture.workers.failures["capture"] = ("Odd", True)
    for _ in range(4):
        capture.clock.advance(HOUR)
        capture.step_until_running()
        capture.workers.complete()
    (job,) = capture.jobs()
    assert job.not_before > capture.clock.now() + RetryPolicy().wait_seconds
    with capture.state.database.read() as connection:
        assert not clock_repair.is_due(connection, capture.clock.reading(), RetryPolicy())


# -- leases ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
def test_a_clock_that_is_set_takes_no_job_from_a_living_worker(capture, seconds):
    capture.step_until_running()
    capture.clock.set(seconds)
    for _ in range(8):
        capture.look_on(5)
        (job,) = jobs_running(capture)
        with capture.state.database.write() as connection:
            jobs.heartbeat(connection, job.id, job.token, 30.0, now=capture.clock.now())
    assert job.losses == 0
    assert capture.settle() == ["capture"]


@pytest.mark.parametrize("seconds", [-HOUR, 0.0])
def test_a_silent_worker_loses_its_job_in_time_also_when_the_clock_was_set_back(capture, seconds):
    capture.step_until_running()
    capture.clock.set(seconds)
    capture.look_on(capture.settings.lease_seconds + 2)
    capture.step()
    assert capture.jobs()[0].losses == 1


def test_a_machine_that_stood_still_takes_no_job_from_its_workers(capture):
    capture.step_until_running()
    capture.look_on(2)
    capture.clock.advance(8 * HOUR)
    capture.step()
    assert [job.losses for job in capture.jobs()] == [0]
    assert capture.settle() == ["capture"]


def test_a_lease_that_was_renewed_since_it_was_looked_at_is_not_taken(capture):
    capture.step_until_running()
    (seen,) = jobs_running(capture)
    with capture.state.database.write() as connection:
        jobs.heartbeat(connection, seen.id, seen.token, 30.0, now=capture.clock.now() + 9)
    with pytest.raises(jobs.Fenced), capture.state.database.write() as connection:
        jobs.lose(connection, seen, now=0.0, policy=RetryPolicy())
    assert jobs_running(capture)[0].losses == 0


def jobs_running(simulation):
    return [job for job in simulation.jobs() if job.state == "running"]


# -- resyncs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-8 * HOUR, 40.0, 8 * HOUR])
def test_a_stop_or_a_set_clock_in_the_middle_of_a_resync_delays_no_later_one(settled, seconds):
    def trouble(name):
        if name == "staging-discard":
            settled.clock.set(seconds)
            settled.clock.advance(abs(seconds))

    settled.clock.advance(settled.settings.resync_seconds + 1)
    with handled_by(trouble):
        settled.step()
    shutil.rmtree(settled.artifact_folder("france-capture"))
    settled.clock.advance(settled.settings.resync_seconds)
    settled.step()
    assert not settled.get("france-capture").ready


class Worked(VirtualClock):
    """A clock on which work takes processor time."""

    def worked(self) -> float:
        return self.time


@pytest.mark.parametrize(("worked", "pause"), [(0.01, 10.0), (0.5, 100.0), (50.0, 600.0)])
def test_what_takes_much_work_comes_more_rarely_and_not_too_rarely(worked, pause):
    clock = Worked()
    turns = Turns(clock, every_seconds=10.0, share=0.005, pause_seconds_max=600.0)
    with turns.turn():
        clock.advance(worked)
    assert turns.next_at == pytest.approx(clock.elapsed() + pause)


# -- the machine's own clock ---------------------------------------------------------------------


def test_both_clocks_are_read_at_one_moment(monkeypatch):
    """A process that is stopped between the two looks must not see a clock that was set."""
    clock, looks = SystemClock(), iter([0.0, 40.0, 40.0, 40.001])
    monkeypatch.setattr(SystemClock, "elapsed", lambda _: next(looks))
    assert clock.reading().elapsed == 40.0


def test_a_process_keeps_its_name_when_the_clock_is_set(monkeypatch):
    import os

    import psutil

    name = process_name(os.getpid())
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 1.0)  # a date: it moves
    assert process_name(os.getpid()) == name and process_exists(name)
