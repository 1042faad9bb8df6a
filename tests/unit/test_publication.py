"""Artifacts as jobs meet them: an input before use, and the result at the end."""

from dataclasses import replace

import pytest

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state import failpoints
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.publication import publish, verified_folder
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.db import jobs
from loopscope.state.db.jobs import Fenced
from tests.simulated import new_state

KEY = Key("Capture", "default", "cap")
ACTION = Action("capture", {"model": "m"}, {"model": {"identity": "m"}})


class World:
    def __init__(self, path):
        self.state = new_state(path / "state")
        with self.state.database.write() as connection:
            job_id, _ = jobs.enqueue(connection, ACTION, KEY, 1, now=1.0)
            self.job = jobs.claim(connection, job_id, "w", 30.0, now=1.0)
        self.staging = self.state.artifacts.staging_folder(ACTION.digest, self.job.token)
        self.staging.mkdir(parents=True, exist_ok=True)
        (self.staging / "rows.json").write_text("[]")
        told = {"stage": "capture", "digest": ACTION.digest, "metrics": {}, "createdAt": 5.0}
        self.record = self.state.artifacts.seal(self.staging, told)

    def publish(self, **changes):
        publish(self.state, replace(self.job, **changes), self.staging, self.record, now=9.0)

    def known(self):
        with self.state.database.read() as connection:
            found = jobs.get(connection, self.job.id)
            return artifact_index.get(connection, ACTION.digest), found.state, found.finished_at


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_result_is_in_its_place_when_its_job_has_succeeded_and_its_shards_go_last(world):
    work = world.state.artifacts.work_folder(ACTION.digest)
    work.mkdir(parents=True)
    seen = {}

    def look(name):
        if name in ("artifact-renamed", "artifact-committed"):
            there = world.state.artifacts.holds("capture", ACTION.digest)
            seen[name] = (there, world.known()[1], work.exists())

    with failpoints.handled_by(look):
        world.publish()
    assert seen == {
        "artifact-renamed": (True, "running", True),
        "artifact-committed": (True, "succeeded", True),
    }
    assert world.known() == (world.record, "succeeded", 9.0)
    assert not work.exists()
    assert (verified_folder(world.state, "capture", ACTION.digest) / "rows.json").exists()


def test_a_worker_whose_job_was_taken_away_publishes_nothing(world):
    with pytest.raises(Fenced):
        world.publish(token=world.job.token + 1)
    assert world.known() == (None, "running", None)
    assert not world.state.artifacts.holds("capture", ACTION.digest)


def test_only_what_the_database_knows_of_that_stage_is_an_input(world):
    with pytest.raises(Corrupt, match=f"capture/{ACTION.digest[:12]} is not known"):
        verified_folder(world.state, "capture", ACTION.digest)
    world.publish()
    with pytest.raises(Corrupt, match=f"mapping/{ACTION.digest[:12]} is not known"):
        verified_folder(world.state, "mapping", ACTION.digest)
    path = world.state.artifacts.folder("capture", ACTION.digest) / "rows.json"
    path.chmod(0o644)
    path.write_text("[1]")
    with pytest.raises(Corrupt):
        verified_folder(world.state, "capture", ACTION.digest)
