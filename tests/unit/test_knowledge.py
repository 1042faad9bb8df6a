"""Whatever a plan reads from the database is news to a resync; what it does not read is none."""

from dataclasses import replace

import pytest

from loopscope.reconcilers.references import input_references
from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import applied, events, inputs, jobs, objects, pauses
from loopscope.state.db.knowledge import knowledge
from loopscope.state.records import AppliedRecord, ArtifactRecord, Progress
from loopscope.state.retry_policy import RetryPolicy
from tests.simulated import new_state, settled_experiment

KEY = Key("Capture", "default", "cap")
ARTIFACT = ArtifactRecord("capture", "d" * 64, "c" * 64, {}, {}, 5.0)


class World:
    """A database with a little of everything."""

    def __init__(self, folder):
        self.database = new_state(folder / "state").database
        with self.database.write() as connection:
            objects.apply(connection, KEY, {"a": 1}, now=1.0)
            for number in range(3):
                jobs.enqueue(connection, Action("capture", {"n": number}, {}), KEY, 1, now=1.0)
            self.running = jobs.claim(connection, 1, "w", 30.0, now=2.0)
            jobs.cancel(connection, 3, "Superseded", "m", now=3.0)
            artifact_index.record(connection, ARTIFACT)
            self.observe(connection, 4.0)

    @staticmethod
    def observe(connection, now, identity="x"):
        facts = {"identity": identity}
        inputs.record(connection, "r" * 64, "model", {"name": "tiny"}, now=now, facts=facts)

    def knows(self):
        with self.database.read() as connection:
            return knowledge(connection)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def object_changed(world, connection):
    objects.apply(connection, KEY, {"a": 2}, now=9.0)


def status_written(world, connection):
    record = objects.get(connection, KEY)
    objects.update_status(connection, record, record.status, "d" * 64)


def job_added(world, connection):
    jobs.enqueue(connection, Action("capture", {"n": 9}, {}), KEY, 1, now=9.0)


def job_claimed(world, connection):
    jobs.claim(connection, 2, "w2", 30.0, now=9.0)


def job_released(world, connection):
    jobs.release(connection, 1, world.running.token)


def job_succeeded(world, connection):
    jobs.succeed(connection, 1, world.running.token, now=9.0)


def job_failed(world, connection):
    jobs.fail(
        connection, 1, world.running.token, "Odd", "m", transient=False, now=9.0,
        policy=RetryPolicy(),
    )  # fmt: skip


def job_failed_for_now(world, connection):
    jobs.fail(
        connection, 1, world.running.token, "Odd", "m", transient=True, now=9.0,
        policy=RetryPolicy(),
    )  # fmt: skip


def job_postponed(world, connection):
    jobs.postpone(connection, 1, world.running.token, "DiskFull", "m", until=99.0)


def job_lost(world, connection):
    jobs.lose(connection, world.running, now=9.0, policy=RetryPolicy())


def job_cancelled(world, connection):
    jobs.cancel(connection, 2, "Cancelled", "m", now=9.0)


def job_that_came_and_went(world, connection):
    job_id, _ = jobs.enqueue(connection, Action("capture", {"n": 9}, {}), KEY, 1, now=9.0)
    jobs.cancel(connection, job_id, "Cancelled", "m", now=9.0)


def job_retried(world, connection):
    jobs.retry(connection, 3, now=9.0)


def artifact_forgotten(world, connection):
    artifact_index.forget(connection, ARTIFACT.digest)


def artifact_made_again(world, connection):
    artifact_index.record(connection, replace(ARTIFACT, created_at=9.0))


def artifact_added(world, connection):
    artifact_index.record(connection, replace(ARTIFACT, digest="e" * 64, created_at=0.0))


def input_observed_again(world, connection):
    world.observe(connection, 9.0, "y")


def paused(world, connection):
    pauses.pause(connection, "all", now=9.0)


NEWS = [
    object_changed,
    status_written,
    job_added,
    job_claimed,
    job_released,
    job_succeeded,
    job_failed,
    job_failed_for_now,
    job_postponed,
    job_lost,
    job_cancelled,
    job_that_came_and_went,
    job_retried,
    artifact_forgotten,
    artifact_made_again,
    artifact_added,
    input_observed_again,
    paused,
]


@pytest.mark.parametrize("write", NEWS, ids=lambda write: write.__name__)
def test_what_a_plan_reads_is_news(world, write):
    before = world.knows()
    with world.database.write() as connection:
        write(world, connection)
    assert world.knows() != before
    assert world.knows() == world.knows()


def heartbeat(world, connection):
    jobs.heartbeat(connection, 1, world.running.token, 30.0, now=9.0)


def progress(world, connection):
    seen = Progress(1, "Capturing", 1, 2, "prompts", 9.0, 9.0)
    jobs.report_progress(connection, 1, world.running.token, seen)


def event(world, connection):
    events.record(connection, KEY, "Normal", "Odd", "m", now=9.0)


def applier(world, connection):
    uid = objects.get(connection, KEY).uid
    applied.record(connection, AppliedRecord(KEY, uid, "somebody", {}))


@pytest.mark.parametrize("write", [heartbeat, progress, event, applier], ids=lambda w: w.__name__)
def test_what_no_plan_reads_is_none(world, write):
    before = world.knows()
    with world.database.write() as connection:
        write(world, connection)
    assert world.knows() == before


def test_an_input_that_another_process_observed_anew_is_acted_on_at_the_next_resync(tmp_path):
    """Nobody put its objects into the queue: the resync must read them by itself."""
    simulation = settled_experiment(tmp_path / "state")
    for _ in range(2):
        assert simulation.resync() == []
    (model,) = input_references(simulation.get("france-capture"))
    simulation.inputs.identity["tiny"] = "other bytes"
    with simulation.state.database.write() as connection:
        assert simulation.inputs.resolve(model).record(connection, simulation.clock.now())
    assert simulation.resync().count("capture") == 1
