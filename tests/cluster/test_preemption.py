"""Requests for room on PostgreSQL: whatever becomes of who asks, one job stops for one, once."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from loopscope.state import failpoints
from loopscope.state.db.dialect.postgresql import leadership
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import keep_database_at
from tests.cluster.test_leadership import cut_off
from tests.postgres_server import PostgresServer
from tests.unit.test_making_room import Lab

MOMENTS = ("transaction-begin", "transaction-commit", "transaction-committed")
ASKING_SECONDS = 4


def controller_of(path: Path, later: float = 0.0) -> Lab:
    """Return a controller that finds the workers as they run, as on a Ray cluster."""
    lab = Lab(path, slots=2)
    lab.clock.time += later
    for job in lab.jobs():
        if job.state == "running":
            assert job.worker is not None  # it runs
            lab.workers.assigned[job.worker] = (job.id, job.token)
            lab.workers.models[job.worker] = job.model
    lab.workers._spawned = 2
    return lab


@pytest.fixture
def world(postgres: PostgresServer, tmp_path: Path):
    """Return folders in which two captures of the class ``low`` run, and an ``urgent`` one came."""
    made = iter(range(100))

    def make() -> Path:
        path = tmp_path / f"state-{next(made)}"
        path.mkdir()
        keep_database_at(path, postgres.new_database())
        lab = Lab(path, slots=2)
        for name in ("one", "two"):
            lab.ask(name, "low")
        lab.step_until_running()
        lab.step()
        lab.ask("now", "urgent")
        lab.state.database.close()
        return path

    return make


@dataclass
class KilledAt:
    """Ends this process at the n-th beginning or end of a write."""

    arrival: int

    def __call__(self, name: str) -> None:
        self.arrival -= name in MOMENTS
        if self.arrival == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def was_killed(path: Path, arrival: int) -> bool:
    """Let a controller in a process of its own ask; return whether it was killed on the way."""
    process = os.fork()
    if process == 0:
        try:
            lab = controller_of(path, later=60.0)
            with failpoints.handled_by(KilledAt(arrival)):
                lab.look_on(ASKING_SECONDS)
        finally:
            os._exit(0)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


def one_stops(lab: Lab) -> None:
    """Whoever asked, and how often: one job is asked, gives its slot, and the other runs on."""
    lab.look_on(ASKING_SECONDS)
    asked = [job_id for job_id, words in lab.beat().items() if words is not None]
    assert len(asked) == 1 == len(lab.rows()["preemptions"])
    assert len(lab.events_of("now", "Preempting")) == 1
    assert lab.end_a_shard() == asked
    for _ in range(3):
        lab.look_on(2)
        assert set(lab.beat().values()) == {None}
    assert "now" in lab.running() and len(lab.running()) == 2
    assert lab.rows()["preemptions"] == []
    made_room = [name for name in ("one", "two") if lab.events_of(name, "Preempted")]
    assert len(made_room) == 1 and made_room[0] not in lab.running()


def test_a_request_outlives_a_controller_that_is_killed_at_any_write(world):
    kills = 0
    while was_killed(path := world(), kills + 1):
        kills += 1
        one_stops(controller_of(path, later=120.0))
    one_stops(controller_of(path, later=120.0))  # that one asked and ended by itself
    assert kills >= len(MOMENTS), "the request is a write"


def test_a_controller_that_is_killed_when_room_was_made_leaves_it_to_who_asked(world):
    path = world()
    first = controller_of(path, later=60.0)
    first.look_on(ASKING_SECONDS)
    (gave,) = first.end_a_shard()
    first.state.database.close()
    assert was_killed(path, 1), "as it begins to start a job"
    lab = controller_of(path, later=120.0)
    lab.look_on(ASKING_SECONDS)
    assert "now" in lab.running() and gave == next(j.id for j in lab.jobs() if j.state == "pending")


def test_a_leader_that_was_stopped_before_it_asked_asks_nobody_when_it_wakes_up(world, monkeypatch):
    monkeypatch.setattr(leadership, "RENEWALS_PER_LEASE", 1e-6)  # as if it were stopped
    path = world()
    old, new = controller_of(path, later=60.0), controller_of(path, later=60.0)
    after = []

    def follow(name: str) -> None:
        """While the old leader stands before its write, another one leads, asks and is heard."""
        if name == "transaction-begin" and not after:
            after.append({})
            cut_off(new.state.database)
            with new.state.database.dialect.leading("new"):
                one_stops(new)
            after.append(new.rows())

    with old.state.database.dialect.leading("old"):
        with (
            failpoints.handled_by(follow),
            pytest.raises(TerminalFailure) as fenced,
        ):
            old.look_on(ASKING_SECONDS)
        assert fenced.value.reason == "NoLongerLeader"
    assert old.rows() == after[-1]
    assert len({job.id for job in new.jobs() if job.state == "running"}) == 2


def test_a_standby_that_takes_over_goes_on_with_the_request_that_it_finds(world, monkeypatch):
    monkeypatch.setattr(leadership, "RENEWALS_PER_LEASE", 1e-6)
    path = world()
    old, new = controller_of(path, later=60.0), controller_of(path, later=60.0)
    with old.state.database.dialect.leading("old"):
        old.look_on(ASKING_SECONDS)
        before = old.rows()["preemptions"]
        cut_off(new.state.database)
        with new.state.database.dialect.leading("new"):
            new.look_on(ASKING_SECONDS)
            assert new.rows()["preemptions"] == before != []
            one_stops(new)
