"""The lease of a running job: it is kept through trouble, but not for ever, and stops in time."""

import errno
import math
import threading
import time

import pytest

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state import failpoints
from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.state.db import jobs
from loopscope.state.failures import JobStopped
from loopscope.worker import stop as stop_module
from loopscope.worker.lease import Lease
from loopscope.worker.shards import Shards
from loopscope.worker.stop import StopRequest
from tests.simulated import new_state

PATIENCE_SECONDS = 60


class Held:
    """A claimed job in a real database, and what became of it."""

    def __init__(self, folder):
        self.state = new_state(folder / "state")
        self.exits = threading.Event()
        self.stop = StopRequest(last_resort=lambda: None)
        with self.state.database.write() as connection:
            key = Key("Capture", "default", "cap")
            job_id, _ = jobs.enqueue(connection, Action("capture", {}, {}), key, 1, now=1.0)
            claimed = jobs.claim(connection, job_id, "w", 30.0, now=1.0)
        self.id, self.token = claimed.id, claimed.token

    def lease(self, lease_seconds=0.06, **options):
        return Lease(
            self.state.database, self.id, self.token, lease_seconds, self.stop,
            end_process=self.exits.set, **options,
        )  # fmt: skip

    def job(self):
        with self.state.database.read() as connection:
            return jobs.get(connection, self.id)

    def until(self, true):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not true():
            assert time.monotonic() < deadline, "it never became true"


@pytest.fixture
def held(tmp_path):
    return Held(tmp_path)


@pytest.fixture
def clock(monkeypatch):
    """Stand in for the clock of stops and shards; ``clock[0]`` is what it shows."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def failing(place, times, error):
    """Fail the first arrivals at a failpoint."""
    left = [times]

    def handler(name):
        if name == place and left[0] > 0:
            left[0] -= 1
            raise error

    return failpoints.handled_by(handler)


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("heartbeat", OSError(errno.ENOSPC, "no space left")),
        ("transaction-begin", RuntimeError("database is locked")),
    ],
)
def test_a_heartbeat_that_fails_is_not_the_last_one(held, place, error):
    before = held.job().lease_expires_at
    with failing(place, 3, error), held.lease():
        held.until(lambda: held.job().lease_expires_at > before)


def test_progress_that_cannot_be_written_does_not_fail_the_job(held):
    lease = held.lease()
    with failing("transaction-begin", 1, OSError(errno.ENOSPC, "no space left")):
        lease.progress("Capturing", 1, 2, "prompts")
    lease.progress("Encoding", 1, 2, "rows")
    with held.state.database.read() as connection:
        assert jobs.progress_of(connection)[held.id].phase == "Encoding"


def test_a_job_speaks_before_its_stage_does(held):
    def seen():
        with held.state.database.read() as connection:
            return jobs.progress_of(connection).get(held.id)

    with held.lease(lease_seconds=600.0):
        held.until(seen)
    assert seen().phase == "Starting"


def test_progress_of_a_job_that_was_taken_away_ends_the_work(held):
    lease = held.lease()
    with held.state.database.write() as connection:
        jobs.cancel(connection, held.id, "Superseded", "an edit", now=2.0)
    with pytest.raises(jobs.Fenced):
        lease.progress("Capturing", 1, 2, "prompts")


def test_a_job_that_is_stuck_fails_with_its_last_words_and_ends_its_process(held):
    lease = held.lease(progress_timeout_seconds=0.05)
    lease.progress("Encoding", 3, 8, "rows")
    with lease:
        assert held.exits.wait(PATIENCE_SECONDS)
    job = held.job()
    assert (job.state, job.reason, job.attempts) == ("pending", "NoProgress", 1)
    assert "in Encoding (3 of 8 rows)" in job.message


def test_a_job_that_reports_is_not_stuck_however_long_it_takes(held, clock):
    lease = held.lease(progress_timeout_seconds=1000.0)
    beats = []
    with failpoints.handled_by(lambda name: name == "heartbeat" and beats.append(name)), lease:
        for hour in range(3):
            clock[0] += 900.0
            lease.progress("Encoding", hour, 8, "rows")
            seen = len(beats)
            held.until(lambda seen=seen: len(beats) > seen + 1)
    assert not held.exits.is_set() and held.job().state == "running"


# -- a known end -----------------------------------------------------------------------


@pytest.fixture
def sealing(held, tmp_path):
    """A lease whose shards take 60 s each, with 100 s left."""
    lease, shards = held.lease(), Shards(ShardFolder(tmp_path / "work"))
    lease.may_finish, lease.overruns = shards.ends_within, shards.overruns
    held.stop.ends_at = time.monotonic() + 100.0
    return lease, shards


def seal(clock, shards, name, seconds):
    assert shards.sealed(name) is None
    clock[0] += seconds
    shards.seal(name, lambda path: path.write_bytes(b"rows"))


def test_a_shard_that_would_end_after_the_time_that_is_left_is_not_begun(held, clock, sealing):
    lease, shards = sealing
    seal(clock, shards, "a", 60.0)
    lease.check()
    assert not held.stop.asked, "what takes no shard may go on"
    assert shards.sealed("b") is None
    with pytest.raises(JobStopped, match="the next shard would end after"):
        lease.check()
    assert held.stop.asked and held.stop.out_of_time, "the process takes no other job"


def test_shards_that_end_in_time_are_made_to_the_last_second(held, clock, sealing):
    lease, shards = sealing
    for name in "abcd":
        seal(clock, shards, name, 20.0)
        lease.check()
    assert shards.sealed("e") is None
    clock[0] += 19.0
    lease.check()
    assert not held.stop.asked


def test_without_a_known_end_no_shard_is_too_long(held, clock, sealing):
    lease, shards = sealing
    held.stop.ends_at = math.inf
    seal(clock, shards, "a", 1e6)
    assert shards.sealed("b") is None
    lease.check()


# -- stops ---------------------------------------------------------------------------


def test_a_stop_between_shards_ends_the_work_at_once(held, tmp_path):
    lease, shards = held.lease(), Shards(ShardFolder(tmp_path / "work"))
    lease.may_finish = shards.ends_within
    shards.seal("a", lambda path: path.write_bytes(b"rows"))
    held.stop.begin()
    with pytest.raises(JobStopped):
        lease.check()


def test_a_shard_under_way_is_finished_first(held, tmp_path, clock):
    lease, shards = held.lease(), Shards(ShardFolder(tmp_path / "work"))
    lease.may_finish = shards.ends_within
    assert shards.sealed("a") is None
    held.stop.begin()
    clock[0] += stop_module.FINISH_SECONDS - 1
    lease.check()
    shards.seal("a", lambda path: path.write_bytes(b"rows"))
    with pytest.raises(JobStopped):
        lease.check()
    assert shards.sealed("a") is not None


def test_a_shard_is_given_up_when_its_time_is_over(held, tmp_path, clock):
    lease, shards = held.lease(), Shards(ShardFolder(tmp_path / "work"))
    lease.may_finish = shards.ends_within
    shards.sealed("a")
    held.stop.begin()
    clock[0] += stop_module.FINISH_SECONDS
    with pytest.raises(JobStopped):
        lease.check()


@pytest.mark.parametrize(("seconds_before", "finishes"), [(5.0, True), (50.0, False)])
def test_a_shard_that_cannot_end_in_time_is_given_up_at_once(
    held, tmp_path, clock, seconds_before, finishes
):
    lease, shards = held.lease(), Shards(ShardFolder(tmp_path / "work"))
    lease.may_finish = shards.ends_within
    shards.sealed("a")
    clock[0] += seconds_before
    shards.seal("a", lambda path: path.write_bytes(b"rows"))
    shards.sealed("b")
    held.stop.begin()
    if finishes:
        lease.check()
    else:
        with pytest.raises(JobStopped):
            lease.check()


def test_a_shard_that_was_found_is_not_under_way(tmp_path):
    shards = Shards(ShardFolder(tmp_path / "work"))
    shards.seal("a", lambda path: path.write_bytes(b"rows"))
    assert shards.sealed("b") is None and shards.ends_within(1.0)
    assert shards.sealed("a") is not None and not shards.ends_within(1.0)


def test_nothing_is_worth_finishing_unless_the_work_says_so(held):
    assert held.lease().may_finish(1.0) is False
