"""Shards and publishing by themselves: whichever call fails, what is there is whole or absent."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.db import jobs
from loopscope.state.failures import PASSING
from loopscope.state.folder import StateFolder
from loopscope.worker.shards import Shards
from tests.fault_seams import SEAMS, Fault, failing
from tests.simulated import Simulation, capture_spec

CONTENT = b"finished piece " * 100


def work(state: StateFolder, job_id: int, token: int) -> None:
    """Do what a worker does with a finished stage: a sealed shard, an artifact, the end."""
    shards = Shards(state.artifacts.shards("d" * 64))
    piece = shards.sealed("piece") or shards.seal("piece", write_content)
    with state.database.read() as connection:
        job = jobs.get(connection, job_id)
    assert job is not None
    staging = state.artifacts.staging_folder(job.digest, token)
    (staging / "result").write_bytes(piece.read_bytes())
    manifest = {"stage": job.stage, "digest": job.digest, "metrics": {}, "createdAt": 1.0}
    record = state.artifacts.seal(staging, manifest)
    with state.database.write() as connection:
        jobs.succeed(connection, job_id, token, now=2.0)
        state.artifacts.publish(staging, record)
        artifact_index.record(connection, record)


def write_content(path: Path) -> None:
    with path.open("wb") as stream:
        stream.write(CONTENT)


@pytest.fixture
def claimed(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply(capture_spec(), "cap", "Capture")
    simulation.step_until_running()
    return simulation


def check_whole_or_absent(simulation: Simulation, job_id: int) -> None:
    state = simulation.state
    piece = Shards(state.artifacts.shards("d" * 64)).sealed("piece")
    assert piece is None or piece.read_bytes() == CONTENT
    with state.database.read() as connection:
        job = jobs.get(connection, job_id)
        known = artifact_index.get(connection, job.digest)
    assert (job.state == "succeeded") == (known is not None), "both or neither are committed"
    with contextlib.suppress(Corrupt):
        found = state.artifacts.record(job.stage, job.digest)
        state.artifacts.verify(found)
        assert (state.artifacts.folder(job.stage, job.digest) / "result").read_bytes() == CONTENT
    if known is not None:
        state.artifacts.verify(known)


@pytest.mark.parametrize("seam", SEAMS)
def test_whichever_call_fails_the_next_try_ends_with_the_same_bytes(seam, claimed):
    ((job_id, token),) = claimed.workers.assigned.values()
    state = claimed.state
    with state.database.read() as connection:
        job = jobs.get(connection, job_id)
    faults = 0
    for error in SEAMS[seam][1]:
        fault = Fault(1, error)
        while True:
            with failing(seam, fault, state.path), contextlib.suppress(*PASSING):
                work(state, job_id, token)
            check_whole_or_absent(claimed, job_id)
            with contextlib.suppress(jobs.Fenced):  # only the answer to the commit was lost
                work(state, job_id, token)
            check_whole_or_absent(claimed, job_id)
            with state.database.read() as connection:
                assert jobs.get(connection, job_id).state == "succeeded"
            if not fault.fired:
                break
            faults += 1
            fault = Fault(fault.nth + 1, error)
            token = begin_again(claimed, job)
        token = begin_again(claimed, job)
    assert faults > 0 or seam == "remove"


def begin_again(simulation: Simulation, job) -> int:
    """Undo the work and claim the job anew; return the token."""
    state = simulation.state
    state.artifacts.quarantine(job.stage, job.digest)
    state.artifacts.discard_work("d" * 64)
    now = simulation.clock.now()
    with state.database.write() as connection:
        artifact_index.forget(connection, job.digest)
        connection.exec_driver_sql("UPDATE jobs SET state = 'pending'")
        return jobs.claim(connection, job.id, "worker-1", 30.0, now=now).token
