"""For how long a lease was not renewed, as far as the controller was there to see it."""

from dataclasses import dataclass, field

import pytest

from loopscope.controller.jobs.leases import LeaseWatch, is_gone
from tests.simulated import VirtualClock

LEASE_SECONDS = 30.0


@dataclass
class Job:
    """What a watch reads of a running job."""

    id: int = 1
    token: int = 1
    worker: str | None = "w"
    lease_expires_at: float | None = 0.0


@dataclass
class Alive:
    """What a watch asks an executor."""

    workers: set[str] = field(default_factory=lambda: {"w"})

    def is_alive(self, worker):
        return worker in self.workers


@pytest.fixture
def clock():
    return VirtualClock()


def watch(clock, lease_seconds=LEASE_SECONDS):
    return LeaseWatch(clock, lease_seconds)


def looks(watch, job, seconds, step=1.0):
    """Look every ``step`` seconds for so long; return after how many the lease was lost first."""
    passed = 0.0
    while passed < seconds:
        watch.clock.advance(step)
        passed += step
        if watch.lost([job], Alive()):
            return passed
    return None


def test_a_lease_is_lost_when_it_was_not_renewed_for_as_long_as_it_lasts(clock):
    watched = watch(clock)
    assert watched.lost([Job()], Alive()) == []
    assert looks(watched, Job(), 60) == LEASE_SECONDS


def test_the_seconds_before_a_controllers_first_look_count_for_nothing(clock):
    watched = watch(clock)
    assert looks(watched, Job(), 60) == LEASE_SECONDS + 1, "the first look only begins to count"


def test_a_renewal_begins_anew(clock):
    watched = watch(clock)
    assert looks(watched, Job(), 29) is None
    assert looks(watched, Job(lease_expires_at=9.0), 30) is None
    assert looks(watched, Job(lease_expires_at=9.0), 30) == 1.0


@pytest.mark.parametrize("other", [Job(token=2), Job(id=2)])
def test_the_silence_of_one_try_is_not_that_of_another(clock, other):
    watched = watch(clock)
    looks(watched, Job(), 29)
    assert looks(watched, other, 30) is None


def test_a_controller_that_was_stopped_counts_one_beat_for_it(clock):
    watched = watch(clock)
    watched.lost([Job()], Alive())
    clock.advance(3600.0)
    assert watched.lost([Job()], Alive()) == []
    assert looks(watched, Job(), 60) == LEASE_SECONDS - LEASE_SECONDS / 6


def test_a_beat_is_no_shorter_than_two_looks(clock):
    watched = watch(clock, lease_seconds=6.0)
    watched.lost([Job()], Alive())
    clock.advance(3600.0)
    assert watched.lost([Job()], Alive()) == []
    assert looks(watched, Job(), 60) == 6.0 - 2.0


def test_a_worker_that_is_gone_loses_its_lease_at_once(clock):
    watched = watch(clock)
    assert watched.lost([Job(), Job(id=2, worker="v")], Alive()) == [Job(id=2, worker="v")]


def test_a_job_without_a_worker_has_nobody_who_could_renew_it():
    assert is_gone(Job(worker=None), Alive())
    assert not is_gone(Job(), Alive())
