"""A bucket that gives no answer: objects say why they wait, and those that are Ready stay so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from loopscope.state.artifacts.bucket import keys
from loopscope.state.artifacts.bucket.bucket_store import BucketStore
from loopscope.state.artifacts.bucket.client import Bucket
from loopscope.state.artifacts.bucket.copies import LocalCopies
from loopscope.state.artifacts.store import Unreachable
from loopscope.worker.failing import NO_FAULT_OF_THE_JOB, failure_of
from tests.simulated import Simulation

WHY = "s3://memory cannot be used now: planted"


@dataclass
class Sometimes(Bucket):
    is_down: bool = False

    @contextmanager
    def _asked(self) -> Iterator[None]:
        if self.is_down:
            raise Unreachable(WHY)
        with super()._asked():
            yield


@pytest.fixture
def bucket() -> Sometimes:
    memory = MemoryStore()
    bucket = Sometimes(memory, memory, "s3://memory")
    bucket.create(keys.OWNER, b"{}")
    return bucket


@pytest.fixture
def world(bucket: Sometimes, tmp_path: Path) -> Simulation:
    world = Simulation(tmp_path / "state")
    store = BucketStore(bucket, LocalCopies(tmp_path / "copies"))
    world.state = world.workers.state = replace(world.state, artifacts=store)
    world.restart()
    return world


def said(world: Simulation, name: str) -> tuple[str, str, str]:
    ready = world.get(name).status.condition("Ready")
    assert ready is not None
    return ready.status, ready.reason, ready.message


def test_an_object_says_why_it_waits_and_goes_on_by_itself(world, bucket):
    world.apply()
    bucket.is_down = True
    for _ in range(5):
        world.controller.step()
        world.clock.advance(1)
    assert said(world, "france-capture") == ("False", "ArtifactsUnreachable", WHY)
    assert WHY in str(world.controller.trouble)
    before = world.get("france-capture").resource_version
    for _ in range(5):
        world.clock.advance(10)
        world.controller.step()
    assert world.get("france-capture").resource_version == before, "it is said once"
    bucket.is_down = False
    assert len(world.settle()) == 6
    assert said(world, "france-capture")[1] == "Succeeded"


def test_what_is_ready_stays_ready_and_nothing_is_made_again(world, bucket):
    world.apply()
    world.settle()
    bucket.is_down = True
    for _ in range(5):
        world.clock.advance(60)
        world.controller.step()
    assert world.get("france-steering").ready and world.controller.trouble is not None
    bucket.is_down = False
    assert world.resync() == [] and world.controller.trouble is None


def test_a_job_that_cannot_reach_them_waits_without_losing_an_attempt(tmp_path):
    wrapped = RuntimeError("could not load")
    wrapped.__cause__ = Unreachable(WHY)
    for error in (Unreachable(WHY), wrapped):
        failure = failure_of(error, tmp_path)
        assert failure.reason in NO_FAULT_OF_THE_JOB and WHY in failure.message
