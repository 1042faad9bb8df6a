"""Two real workers at one capture, of which one is killed: the bytes of a worker that was alone."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loopscope.controller.jobs.leases import take_back
from loopscope.state.db import leader, shares
from loopscope.state.records import JobHead
from loopscope.state.retry_policy import RetryPolicy
from loopscope.state.share import Share
from tests.integration.real import eventually
from tests.integration.real_worker import RealWorker
from tests.tiny_models import folder_reference

pytestmark = pytest.mark.integration

PROMPTS = 24
SMALL_SHARDS = """
from loopscope.worker.stages.capture import stage
stage.TOKENS_PER_BATCH_MAX, stage.BATCHES_PER_SHARD = 12, 1
"""
WAITS = """
import os, time
from loopscope.worker.shards import Shards
seal, sealed = Shards.seal, []
def instead(self, name, write):
    path = seal(self, name, write)
    sealed.append(name)
    os.write(2, b"sealed " + name.encode() + b"\\n")
    while len(sealed) == {after} and not os.path.exists({go!r}):
        time.sleep(0.02)
    return path
Shards.seal = instead
"""


class Pair:
    """A capture's own worker and that of its share; each stops after some shards, until told."""

    def __init__(self, folder: Path, reference: dict[str, Any]) -> None:
        self.own_goes, self.share_goes = folder / "own-goes", folder / "share-goes"
        prelude = SMALL_SHARDS + WAITS.format(after=2, go=str(self.own_goes))
        self.own = RealWorker(folder, reference, PROMPTS, prelude)
        self.other = RealWorker.__new__(RealWorker)
        self.other.state, self.other.digest = self.own.state, self.own.digest
        self.other.prelude = SMALL_SHARDS + WAITS.format(after=3, go=str(self.share_goes))
        self.other.log_path = folder / "share.log"

    def begin(self) -> None:
        """Start both; each has sealed some shards when this returns."""
        with self.own.state.database.write() as connection:
            leader.note_worker(connection, "w", "cpu", None)
        self.own.start()
        self.own.until("sealed capture-00001")
        job = self.own.job()
        with self.own.state.database.write() as connection:
            maker = shares.maker_of(connection, "w")
            assert maker is not None, "the worker did not say of which kind it is"
            share = Share(0, job.id, 1, 1, maker, job.digest)
            self.other.job_id = shares.add(connection, job, share, job.payload, now=1.0)
        self.other.start()
        eventually(lambda: self.other.log().count("sealed") == 3)

    def kill(self, worker: RealWorker) -> JobHead:
        """kill -9 a worker; its lease is taken back. Return its job as it ran."""
        job = worker.job()
        worker.process.send_signal(signal.SIGKILL)
        worker.process.wait()
        with self.own.state.database.write() as connection:
            take_back(connection, job, RetryPolicy(), time.time())
        return job

    def end(self) -> None:
        self.own.end()
        self.other.end()


@pytest.fixture
def pair(tmp_path: Path, rope_model_folder: Path) -> Iterator[Pair]:
    made = Pair(tmp_path, folder_reference(rope_model_folder))
    yield made
    made.end()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, rope_model_folder: Path) -> dict[str, bytes]:
    """The files of the same capture by one worker that nobody helped or killed."""
    folder = tmp_path_factory.mktemp("alone")
    worker = RealWorker(folder, folder_reference(rope_model_folder), PROMPTS, SMALL_SHARDS)
    worker.start()
    assert worker.until_ended() == 0, worker.log()
    return worker.contents()


def test_what_a_killed_share_sealed_counts_and_its_capture_makes_the_rest(
    pair: Pair, alone: dict[str, bytes]
) -> None:
    pair.begin()
    pair.kill(pair.other)
    pair.own_goes.touch()
    assert pair.own.until_ended() == 0, pair.own.log()
    assert pair.own.job().state == "succeeded" and pair.own.contents() == alone
    theirs = set(pair.other.log().split("sealed ")[1:])
    ours = set(pair.own.log().split("sealed ")[1:])
    assert len(theirs) == 3 and not theirs & ours, "a sealed shard was made again"
    assert pair.other.job().state == "cancelled", "it waited for another worker until then"


def test_a_share_goes_on_while_its_killed_capture_waits_for_another_worker(
    pair: Pair, alone: dict[str, bytes]
) -> None:
    pair.begin()
    before = pair.kill(pair.own)
    pair.share_goes.touch()
    assert pair.other.until_ended() == 0, pair.other.log()
    assert pair.other.job().state == "succeeded" and pair.own.job().state == "pending"
    pair.own_goes.touch()
    pair.own.start()
    assert pair.own.until_ended() == 0, pair.own.log()
    assert pair.own.contents() == alone
    assert pair.own.job().token > before.token


def test_a_share_that_lost_its_job_while_it_was_stopped_seals_nothing_more(
    pair: Pair, alone: dict[str, bytes]
) -> None:
    pair.begin()
    pair.other.process.send_signal(signal.SIGSTOP)
    with pair.own.state.database.write() as connection:
        take_back(connection, pair.other.job(), RetryPolicy(), time.time())
    pair.share_goes.touch()
    sealed = pair.own.shards()
    pair.other.process.send_signal(signal.SIGCONT)
    eventually(lambda: "taken away" in pair.other.log())
    assert pair.own.shards() == sealed
    pair.own_goes.touch()
    assert pair.own.until_ended() == 0, pair.own.log()
    assert pair.own.contents() == alone
