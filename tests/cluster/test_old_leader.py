"""A leader that was stopped at a bad moment wakes up when another leads: it takes nothing away."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state import failpoints
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.collection import RetentionPolicy, collect, take_stock
from loopscope.state.artifacts.publication import publish
from loopscope.state.artifacts.reachability import Reachability
from loopscope.state.db import jobs
from loopscope.state.failures import TransientFailure
from loopscope.state.folder import StateFolder, keep_database_at, open_state
from tests.cluster.test_leadership import cut_off
from tests.integration.real import Place, eventually
from tests.postgres_server import PostgresServer

KEY = Key("Capture", "default", "cap")
ACTION = Action("capture", {"hook": "a"}, {"hook": "a"})


@pytest.fixture
def place(postgres: PostgresServer, tmp_path: Path) -> Place:
    place = Place(tmp_path)
    keep_database_at(place.state, postgres.new_database())
    return place


def claimed(state: StateFolder, now: float) -> jobs.JobHead:
    with state.database.write() as connection:
        job, _ = jobs.enqueue(connection, ACTION, KEY, 1, now=now)
        return jobs.claim(connection, job, "w", 600.0, now=now)


def published(state: StateFolder) -> None:
    job = claimed(state, 1.0)
    staging = state.artifacts.staging_folder(job.digest, job.token)
    (staging / "rows").write_bytes(b"rows")
    told = {"stage": job.stage, "digest": job.digest, "metrics": {}, "createdAt": 1.0}
    publish(state, job, staging, state.artifacts.seal(staging, told), now=1.0)


def seal_a_shard(state: StateFolder, digest: str) -> None:
    state.artifacts.shards(digest).seal("part", lambda part: part.write_bytes(b"piece"))


@contextmanager
def stopped_at(place: Place, failpoint: str) -> Iterator[subprocess.Popen[str]]:
    """Yield a controller that stopped itself there, with its lease run out."""
    process = place.start("controller", failpoint=f"{failpoint}:stop@1")
    try:
        eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def test_it_removes_no_shards_of_work_that_was_taken_up_again_since_it_looked(place):
    state = open_state(place.state)
    published(state)
    with stopped_at(place, "staging-discard") as old:
        cut_off(state.database)
        with state.database.dialect.leading("the next"):
            with state.database.write() as connection:  # as `rerun` does
                artifact_index.forget(connection, ACTION.digest)
            claimed(state, 2.0)
            seal_a_shard(state, ACTION.digest)
            old.send_signal(signal.SIGCONT)
            output, _ = old.communicate(timeout=120)
            assert old.returncode != 0 and "another controller leads" in output
    assert state.artifacts.shards(ACTION.digest).names() == ["part"]


def test_who_lost_the_transaction_while_it_collected_collects_nothing_more(place, postgres):
    state = open_state(place.state)
    for letter in "abc":
        seal_a_shard(state, letter * 64)
    reachability = Reachability(state.artifacts)
    stock = take_stock(state, reachability, RetentionPolicy(grace_seconds=0.0), now=2e9)
    assert [thing.name[0] for thing in stock.unneeded] == ["a", "b", "c"]

    def lose_it(name: str) -> None:
        if name == "trash-put":
            with psycopg.connect(state.database.dialect.address.conninfo) as other:
                other.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where state = 'idle in transaction' and datname = current_database()"
                )

    with failpoints.handled_by(lose_it), pytest.raises(TransientFailure):
        collect(state, reachability, stock.unneeded, now=2e9)
    assert state.artifacts.worked_on() == {"b" * 64, "c" * 64}
