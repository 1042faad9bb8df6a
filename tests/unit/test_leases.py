"""Leases that are taken back: when, with which words, and what becomes of worker and job."""

import pytest
from sqlalchemy import update

from loopscope.controller.jobs.leases import (
    LOCK_WAIT_SECONDS,
    LOOK_SECONDS,
    Leases,
    LeaseWatch,
    give_back,
    take_back,
)
from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state.db import events, jobs, objects, tables
from loopscope.state.failures import TerminalFailure, TransientFailure
from loopscope.state.retry_policy import RetryPolicy
from tests.moments import somebody
from tests.simulated import VirtualClock, capture_spec, new_state

KEY, OTHER = (Key("Capture", "default", name) for name in ("cap", "other"))
ACTION = Action("capture", {"model": "m"}, {"model": {"identity": "m"}})
LEASE_SECONDS = 30.0


class Workers:
    """Workers of whom some live; those that are killed are listed."""

    def __init__(self, *alive):
        self.alive, self.killed, self.asked, self.ended = set(alive), [], [], {}

    def is_alive(self, worker):
        return worker in self.alive

    def how_it_ended(self, worker):
        self.asked.append(worker)
        return self.ended.get(worker, "")

    def kill(self, worker):
        self.killed.append(worker)


class World:
    def __init__(self, path, policy):
        self.database = new_state(path / "state").database
        self.clock, self.workers = VirtualClock(), Workers("w")
        watch = LeaseWatch(self.clock, LEASE_SECONDS)
        self.leases = Leases(self.database, self.clock, self.workers, policy, watch)
        with self.database.write() as connection:
            for key in (KEY, OTHER):
                objects.apply(connection, key, capture_spec(), now=1.0)
                record = objects.get(connection, key)
                objects.update_status(connection, record, record.status, ACTION.digest)
            job_id, _ = jobs.enqueue(connection, ACTION, KEY, 1, now=1.0)
            self.job = jobs.claim(connection, job_id, "w", LEASE_SECONDS, now=1.0)

    def look(self, seconds=LOOK_SECONDS):
        """Let time pass and look; return the keys that are to be looked at again."""
        self.clock.advance(seconds)
        return [sorted(keys) for keys in self.leases.take_back_lost()]

    def row(self):
        with self.database.read() as connection:
            return jobs.get(connection, self.job.id)

    def events(self):
        with self.database.read() as connection:
            found = events.listed(connection, KEY)
        return [(event.type, event.reason, event.message) for event in found]


@pytest.fixture
def policy():
    return RetryPolicy()


@pytest.fixture
def world(tmp_path, policy):
    return World(tmp_path, policy)


def test_the_lease_of_a_worker_that_is_gone_is_taken_back_at_the_first_look(world):
    assert world.look() == []
    world.workers.alive.clear()
    world.workers.ended["w"] = "was killed by signal 9"
    assert world.look() == [sorted([KEY, KEY, OTHER])]
    row = world.row()
    assert (row.state, row.losses, row.attempts, row.worker) == ("pending", 1, 0, None)
    words = (
        f"capture job {row.id} lost its worker, which was killed by signal 9; it is queued again"
    )
    assert world.events() == [("Warning", "WorkerLost", words)]
    assert world.workers.killed == ["w"]
    assert world.look() == []


def test_a_worker_that_is_silent_for_a_whole_lease_is_ended(world):
    looks = 0
    while not world.look():
        looks += 1
    assert looks == LEASE_SECONDS / LOOK_SECONDS
    assert world.workers.killed == ["w"]
    words = f"capture job {world.job.id} lost its worker; it is queued again"
    assert world.events() == [("Warning", "WorkerLost", words)]


def test_a_controller_looks_once_a_second_unless_it_is_asked_to_look_at_once(world):
    assert world.look() == []
    world.workers.alive.clear()
    assert world.look(LOOK_SECONDS / 2) == []
    world.leases.check_at_once()
    assert world.look(0.0) != []


def test_a_second_later_it_looks_by_itself(world):
    assert world.look() == []
    world.workers.alive.clear()
    assert world.look(LOOK_SECONDS) != []


def test_a_lease_that_is_lost_too_often_is_given_up(world, policy):
    with world.database.write() as connection:
        job = world.job
        for _ in range(policy.losses_max - 1):
            assert take_back(connection, job, policy, 5.0) == [KEY]
            job = jobs.claim(connection, job.id, "w", LEASE_SECONDS, now=6.0)
        assert take_back(connection, job, policy, 7.0, "exited with status 1") == [KEY]
    row = world.row()
    assert (row.state, row.losses, row.finished_at) == ("failed", policy.losses_max, 7.0)
    assert world.events()[-1][2] == (
        f"capture job {row.id} lost its worker, which exited with status 1; "
        "it was lost too often and is given up"
    )


@pytest.mark.parametrize(
    ("waited", "alive", "taken"),
    [
        (LOCK_WAIT_SECONDS, True, True),
        (LOCK_WAIT_SECONDS * 1.1, True, False),
        (LOCK_WAIT_SECONDS * 1.1, False, True),
    ],
)
def test_who_waited_for_the_lock_takes_only_the_lease_of_a_worker_that_is_gone(
    world, waited, alive, taken
):
    """A worker that is silent for a lease, and a lock that is held while it is taken."""
    for _ in range(round(LEASE_SECONDS / LOOK_SECONDS)):
        assert world.look() == []
    if not alive:
        world.workers.alive.clear()
    with somebody(lambda: world.clock.advance(waited), at="lease-take-back"):
        assert (world.look() != []) is taken
    assert (world.row().state == "pending") is taken
    assert world.workers.killed == (["w"] if taken else [])


def test_a_lease_that_was_renewed_meanwhile_is_left_and_its_worker_lives(world):
    def renew():
        with world.database.write() as connection:
            jobs.heartbeat(connection, world.job.id, world.job.token, 99.0, now=50.0)

    world.look()
    world.workers.alive.clear()
    with somebody(renew, at="lease-take-back"):
        assert world.look() == []
    assert world.row().state == "running"
    assert world.workers.killed == [] and world.events() == []


@pytest.fixture
def refused(world, monkeypatch):
    """Look at a silent worker while nothing can be written; return who was ended by then."""

    def look(reason="DatabaseBusy", seconds=LOOK_SECONDS):
        def fails(*args, **more):
            raise TransientFailure(reason, "x")

        with monkeypatch.context() as patched:
            patched.setattr(jobs, "lose", fails)
            with pytest.raises(TransientFailure):
                world.look(seconds)
        assert world.row().state == "running"
        return world.workers.killed

    for _ in range(round(LEASE_SECONDS / LOOK_SECONDS)):
        assert world.look() == []
    return look


def test_a_worker_that_may_hold_the_lock_is_ended_once_nobody_could_write_for_a_lease(refused):
    assert refused() == []
    assert refused(seconds=LEASE_SECONDS - LOOK_SECONDS) == []
    assert refused() == ["w"]


def test_a_worker_is_not_ended_because_the_disk_is_full(refused):
    refused("DiskFull")
    assert refused("DiskFull", LEASE_SECONDS * 2) == []


def test_patience_begins_anew_where_somebody_could_write_meanwhile(world, refused):
    def renew(expires_at):
        with world.database.write() as connection:
            jobs.heartbeat(connection, world.job.id, world.job.token, expires_at, now=50.0)

    assert refused() == []
    renew(99.0)
    for _ in range(round(LEASE_SECONDS / LOOK_SECONDS)):
        assert world.look() == []
    assert refused() == []


def test_of_several_silent_workers_one_after_the_other_is_ended(world, refused):
    other = Action("capture", {"model": "n"}, {"model": {"identity": "n"}})
    with world.database.write() as connection:
        job_id, _ = jobs.enqueue(connection, other, OTHER, 1, now=1.0)
        jobs.claim(connection, job_id, "v", LEASE_SECONDS, now=1.0)
    world.workers.alive.add("v")
    refused()
    assert refused(seconds=LEASE_SECONDS) == ["w"]
    world.workers.alive.remove("w")
    for _ in range(round(LEASE_SECONDS / LOOK_SECONDS)):
        refused()
    assert world.workers.killed[-1] == "v"


def test_a_job_that_names_no_worker_is_taken_back_and_nobody_is_killed(world):
    with world.database.write() as connection:
        connection.execute(update(tables.jobs).values(worker=None))
    assert world.look() != []
    assert (world.workers.asked, world.workers.killed) == ([""], [""]), "nobody has no name"


def test_a_job_that_names_no_worker_may_hold_no_lock(world, refused):
    with world.database.write() as connection:
        connection.execute(update(tables.jobs).values(worker=None))
    refused()
    assert refused(seconds=LEASE_SECONDS) == []


def test_the_job_of_a_worker_that_could_not_give_it_back_at_a_stop_waits_again(world):
    give_back(world.database, ["w", "another"])
    with world.database.read() as connection:
        job = jobs.head(connection, world.job.id)
    assert (job.state, job.worker, job.losses, job.attempts) == ("pending", None, 0, 0)


def test_a_stop_gives_back_no_job_of_the_worker_of_another(world):
    give_back(world.database, ["another"])
    with world.database.read() as connection:
        assert jobs.head(connection, world.job.id).worker == "w"


@pytest.mark.parametrize(
    "trouble", [TransientFailure("DatabaseBusy", "x"), TerminalFailure("NoLongerLeader", "x")]
)
def test_a_stop_that_cannot_write_leaves_the_job_to_the_next_controller(
    world, monkeypatch, trouble
):
    def fails(*args):
        raise trouble

    monkeypatch.setattr(jobs, "release", fails)
    give_back(world.database, ["w"])
    with world.database.read() as connection:
        assert jobs.head(connection, world.job.id).state == "running"
