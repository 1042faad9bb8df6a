"""One commit: what of a plan is written, and what it is refused for."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from loopscope.controller.reconcile import commit as commit_module
from loopscope.controller.reconcile.commit import commit, log_committed, would_write
from loopscope.reconcilers.plan import ChildManifest, Plan, PlannedEvent, Snapshot
from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.specs.status import ArtifactReference, Condition, Status
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import events, jobs, objects
from loopscope.state.db.objects import Conflict
from tests.simulated import capture_spec, new_state

KEY, OTHER = (Key("Capture", "default", name) for name in ("cap", "other"))
DIGEST = "d" * 64
ACTION = Action("capture", {"model": "m"}, {"model": {"identity": "m"}})
READY = Status(1, (Condition("Ready", "True", "Succeeded", "", 1),))
NEWS = PlannedEvent("Warning", "Odd", "something is odd")


class World:
    def __init__(self, path):
        self.state = new_state(path / "state")
        self.write(lambda connection: self.apply(connection, KEY))

    def apply(self, connection, key, **more):
        return objects.apply(connection, key, capture_spec(), now=1.0, **more)

    def write(self, work):
        with self.state.database.write() as connection:
            return work(connection)

    def read(self, work):
        with self.state.database.read() as connection:
            return work(connection)

    def get(self, key=KEY):
        return self.read(lambda connection: objects.get(connection, key))

    def commit(self, plan, record=None, children=()):
        snapshot = Snapshot(record or self.get(), 5.0, children=tuple(children))
        return self.write(
            lambda connection: commit(connection, self.state.artifacts, snapshot, plan, 9.0)
        )

    def published(self, digest=DIGEST):
        """Return an artifact that lies in its place and is not in the index."""
        staging = self.state.artifacts.staging_folder(digest, 1)
        staging.mkdir(parents=True, exist_ok=True)
        (staging / "rows.json").write_text("[]")
        told = {"stage": "capture", "digest": digest, "metrics": {}, "createdAt": 5.0}
        record = self.state.artifacts.seal(staging, told)
        self.state.artifacts.publish(staging, record)
        return record

    def events(self, key=KEY):
        found = self.read(lambda connection: events.listed(connection, key))
        return sorted((event.type, event.reason, event.message) for event in found)

    def indexed(self, digest=DIGEST):
        return self.read(lambda connection: artifact_index.get(connection, digest)) is not None

    def index(self, record):
        self.write(lambda connection: artifact_index.record(connection, record))


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_status_is_written_with_its_events_and_once(world):
    plan = Plan(READY, "w", events=(NEWS,))
    assert world.commit(plan) is None
    record = world.get()
    assert (record.status, record.wanted_digest) == (READY, "w")
    assert world.events() == [("Warning", "Odd", "something is odd")]
    again = replace(plan, events=(replace(NEWS, message="said twice"),))
    assert world.commit(again) is None
    assert world.get() == record
    assert len(world.events()) == 1


def test_an_object_that_changed_since_is_a_conflict_and_nothing_is_written(world):
    old = world.get()
    world.commit(Plan(READY, "w"))
    before = world.get()
    with pytest.raises(Conflict):
        world.commit(Plan(Status(2), "x", events=(NEWS,)), record=old)
    assert world.get() == before and world.events() == []


def test_damage_is_set_aside_forgotten_and_told_to_whoever_rests_on_it(world):
    record = world.published()
    world.index(record)
    resting = replace(READY, artifact=ArtifactReference("capture", DIGEST, record.content_digest))
    world.write(lambda connection: world.apply(connection, OTHER))
    for key in (KEY, OTHER):
        world.write(
            lambda connection, key=key: objects.update_status(
                connection, objects.get(connection, key), resting, DIGEST
            )
        )
    plan = Plan(Status(1), DIGEST, quarantine=record, events=(NEWS,))
    world.commit(plan)
    assert not world.indexed()
    assert not world.state.artifacts.holds("capture", DIGEST)
    assert (world.state.artifacts.root / ".quarantine").is_dir()
    other = world.get(OTHER)
    assert not other.ready
    ready = other.status.condition("Ready")
    words = "another object that rests on this artifact found it damaged"
    assert (ready.reason, ready.message) == ("ArtifactDamaged", words)
    assert world.get().status == Status(1)
    assert world.events() == [("Warning", "Odd", "something is odd")]


def test_damage_is_told_also_where_the_status_stays(world):
    record = world.published()
    world.index(record)
    world.commit(Plan(READY, DIGEST))
    world.commit(Plan(READY, DIGEST, quarantine=record, events=(NEWS,)))
    assert world.events() == [("Warning", "Odd", "something is odd")]


def test_an_artifact_that_is_taken_over_is_indexed_and_ends_the_job_for_it(world):
    action = ACTION
    job_id = world.write(lambda c: jobs.enqueue(c, action, KEY, 1, now=1.0))[0]
    record = world.published(action.digest)
    resting = replace(READY, artifact=ArtifactReference("capture", action.digest, "c"))
    world.commit(Plan(resting, action.digest, adopt=record))
    assert world.indexed(action.digest)
    assert world.read(lambda c: jobs.get(c, job_id)).state == "succeeded"


def test_work_is_queued_once_and_says_so_once(world):
    job_id = world.commit(Plan(READY, ACTION.digest, enqueue=ACTION))
    job = world.read(lambda c: jobs.get(c, job_id))
    assert (job.state, job.object, job.generation) == ("pending", KEY, 1)
    assert world.events() == [("Normal", "JobQueued", f"queued capture job {job_id}")]
    assert world.commit(Plan(READY, ACTION.digest, enqueue=ACTION)) is None
    assert len(world.events()) == 1


@pytest.mark.parametrize("what", ["adopted", "rests on", "input"])
def test_no_plan_is_written_whose_artifacts_were_collected_meanwhile(world, what):
    needed = {"digest": DIGEST, "contentDigest": "c"}
    work = Action("decomposition", {"x": 1}, {"capture": needed})
    record = world.published()
    reference = ArtifactReference("capture", DIGEST, "c")
    plan = {
        "adopted": Plan(READY, DIGEST, adopt=record),
        "rests on": Plan(replace(READY, artifact=reference), DIGEST),
        "input": Plan(READY, work.digest, enqueue=work),
    }[what]
    if what == "adopted":
        world.state.artifacts.quarantine("capture", DIGEST)
    before = world.get()
    with pytest.raises(Conflict, match="was collected meanwhile"):
        world.commit(plan)
    assert world.get() == before
    if what != "adopted":
        world.index(record)
        world.commit(plan)
        assert world.get().wanted_digest == plan.wanted_digest


# -- children ------------------------------------------------------------------------------


def child(name, **labels):
    return ChildManifest(Key("Capture", "default", name), capture_spec(), labels)


def test_children_are_made_and_edited_and_each_change_is_told_of_their_owner(world):
    world.commit(Plan(READY, apply=(child("a", axis="x"), child("b"))))
    made = world.get(child("a").key)
    assert made.owner == KEY
    assert made.labels == {"axis": "x", "loopscope.dev/experiment": "cap"}
    created = [("Normal", "Created", f"Created capture/{name}") for name in "ab"]
    assert world.events() == created
    there = [world.get(child(name).key) for name in "ab"]
    world.commit(Plan(READY, apply=(child("a", axis="x"), child("b", axis="y"))), children=there)
    assert world.events() == [("Normal", "Configured", "Configured capture/b"), *created]
    gone = child("a").key
    world.write(lambda c: objects.remove(c, gone, now=2.0))
    world.commit(Plan(READY, apply=(child("a"),)), children=there)
    configured = [("Normal", "Configured", f"Configured capture/{name}") for name in "ab"]
    assert world.events() == [*configured, *created], "made again is not news"


def test_children_that_are_not_wanted_any_more_are_removed_unless_they_are_gone(world):
    world.commit(Plan(READY, apply=(child("a"), child("b"))))
    world.write(lambda c: objects.remove(c, child("a").key, now=2.0))
    world.commit(Plan(READY, remove=(child("a").key, child("b").key)))
    assert world.get(child("b").key) is None
    assert [event for event in world.events() if event[1] == "Removed"] == [
        ("Normal", "Removed", "Removed capture/b")
    ]


def test_a_child_whose_name_somebody_else_has_is_told_and_left_alone(world):
    world.write(lambda connection: world.apply(connection, OTHER))
    before = world.get(OTHER)
    world.commit(Plan(READY, apply=(child("other"), child("a"))))
    assert world.get(OTHER) == before and world.get(child("a").key) is not None
    warning, created = sorted(world.events(), reverse=True)
    assert warning[:2] == ("Warning", "OwnedByAnother") and "capture/other" in warning[2]
    assert created == ("Normal", "Created", "Created capture/a")


# -- what is written at all ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "writes"),
    [
        ({}, False),
        ({"status": Status(1)}, True),
        ({"wanted_digest": "x"}, True),
        ({"enqueue": ACTION}, True),
        ({"quarantine": "artifact"}, True),
        ({"adopt": "artifact"}, True),
        ({"apply": (child("a"),)}, True),
        ({"remove": (KEY,)}, True),
        ({"events": (NEWS,)}, False),
    ],
)
def test_a_plan_writes_only_what_is_not_so_already(world, changes, writes):
    world.commit(Plan(READY, "w"))
    assert would_write(Snapshot(world.get(), 5.0), replace(Plan(READY, "w"), **changes)) is writes


@pytest.mark.parametrize(
    ("status", "wanted", "expected"),
    [
        (READY, "f" * 64, ("f" * 12, "True", "Succeeded")),
        (Status(1), None, ("", None, None)),
    ],
)
def test_the_log_has_one_line_for_a_plan(world, monkeypatch, status, wanted, expected):
    lines = []
    monkeypatch.setattr(
        commit_module, "log", SimpleNamespace(info=lambda what, **more: lines.append((what, more)))
    )
    log_committed(Snapshot(world.get(), 5.0), Plan(status, wanted), 7)
    digest, ready, reason = expected
    assert lines == [
        ("reconciled", {
            "object": "capture/cap", "generation": 1, "digest": digest, "ready": ready,
            "reason": reason, "job_added": 7,
        }),
    ]  # fmt: skip
