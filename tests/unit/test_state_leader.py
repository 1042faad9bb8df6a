"""The leader's record of itself and of its workers."""

import os

import pytest
from sqlalchemy import update

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state.db import jobs, leader, tables
from loopscope.state.processes import process_name
from loopscope.state.records import LeaderRecord, WorkerRecord
from tests.simulated import new_state

KEY = Key("Capture", "default", "cap")


@pytest.fixture
def database(tmp_path):
    return new_state(tmp_path / "state").database


def note(database, name, device="cpu", model=None, idle=()):
    with database.write() as connection:
        leader.note_worker(connection, name, device, model, idle)


def workers(database):
    with database.read() as connection:
        return leader.workers(connection)


def test_a_new_leader_takes_the_place_of_the_one_before_and_has_none_of_its_workers(database):
    with database.write() as connection:
        assert leader.announce(connection, "1@0", {"slots": 1}, now=5.0) is None
    note(database, "1@1")
    assert set(workers(database)) == {"1@1"}
    with database.write() as connection:
        before = leader.announce(connection, "2@0", {"slots": 2}, now=9.0)
    assert before == LeaderRecord("1@0", 5.0, {"slots": 1})
    with database.read() as connection:
        assert leader.get(connection) == LeaderRecord("2@0", 9.0, {"slots": 2})
    assert workers(database) == {}


def test_a_leader_is_only_one_while_its_process_lives(database):
    for process, lives in (("1@0", False), (process_name(os.getpid()), True)):
        with database.write() as connection:
            leader.announce(connection, process, {}, now=5.0)
        with database.read() as connection:
            assert (leader.living(connection) is not None) is lives


def test_a_worker_keeps_its_model_until_it_holds_another(database):
    note(database, "w", "cuda:0", "one")
    note(database, "w", "cuda:0")
    assert workers(database) == {"w": WorkerRecord("w", "cuda:0", "one")}
    note(database, "w", "cpu", "two")
    assert workers(database) == {"w": WorkerRecord("w", "cpu", "two")}


def test_a_worker_is_forgotten_unless_it_is_idle_or_runs_a_job(database):
    with database.write() as connection:
        job_id, _ = jobs.enqueue(connection, Action("capture", {}, {}), KEY, 1, now=1.0)
        jobs.claim(connection, job_id, "busy", 30.0, now=1.0)
    note(database, "busy")
    note(database, "gone")
    note(database, "idle", idle=("gone",))
    assert set(workers(database)) == {"busy", "gone", "idle"}
    note(database, "new", idle=("idle",))
    assert set(workers(database)) == {"busy", "idle", "new"}
    with database.write() as connection:
        connection.execute(update(tables.jobs).values(state="failed"))
    note(database, "new")
    assert set(workers(database)) == {"new"}
