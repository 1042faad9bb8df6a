"""What nothing needs goes to the trash, what something needs never does, and it comes back."""

import atexit
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from loopscope.controller.maintenance.retention import LOOK_SECONDS, Retention
from loopscope.controller.reconcile.snapshots import Observer
from loopscope.specs.keys import PIN_ANNOTATION, Key
from loopscope.state import failpoints
from loopscope.state.artifacts import collection
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.collection import (
    RetentionPolicy,
    collect,
    forget_missing,
    take_stock,
)
from loopscope.state.artifacts.consistency import compare
from loopscope.state.artifacts.reachability import Reachability
from loopscope.state.artifacts.trash import Trash
from loopscope.state.db import objects
from loopscope.state.invariants import see
from tests.history import History
from tests.simulated import (
    Crash,
    Simulation,
    copy_state,
    experiment_spec,
    settled_experiment,
    texts,
)

EVERYTHING = ["capture", "decomposition", "decomposition", "mapping", "steering"]
OTHER = {"target": texts("Paris is", "Nice is"), "neutral": texts("Rome is", "Oslo is")}
NOW = RetentionPolicy(grace_seconds=0.0, trash_seconds=100.0)


@functools.cache
def edited_once():
    folder = Path(tempfile.mkdtemp(prefix="loopscope-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    world = settled_experiment(folder / "state")
    world.apply(experiment_spec(prompts=OTHER))
    assert world.settle() == EVERYTHING
    world.state.database.close()
    return folder / "state"


@pytest.fixture
def edited(tmp_path):
    """The experiment has other prompts now; what was made of the old ones is unneeded."""
    copy_state(edited_once(), tmp_path / "state")
    world = Simulation(tmp_path / "state")
    world.clock.time += 5000
    return world


def unneeded(world, policy=NOW):
    reachability = Reachability(world.state.artifacts, policy.keep_last)
    return take_stock(world.state, reachability, policy, world.clock.now()).unneeded


def gc(world, policy=NOW):
    """Collect by hand; return the stages of what went to the trash."""
    reachability = Reachability(world.state.artifacts, policy.keep_last)
    found = take_stock(world.state, reachability, policy, world.clock.now()).unneeded
    gone = collect(world.state, reachability, found, world.clock.now())
    forget_missing(world.state, reachability)
    return [thing.group or thing.kind for thing in gone]


def trashed(world):
    return sorted(e.path.parent.name for e in Trash(world.state.artifacts.root).entries())


def problems(world):
    return [finding.problem for finding in compare(world.state).findings]


def watch(world, history):
    """Return what broke since the last look."""
    with world.state.database.read() as connection:
        return history.look(see(connection), world.state.artifacts)


def annotate(world, **annotations):
    with world.state.database.write() as connection:
        key = Key("Experiment", "default", "france")
        spec = objects.get(connection, key).spec
        objects.apply(connection, key, spec, now=0.0, annotations=annotations)
    world.settle()


# -- what is needed ------------------------------------------------------------------------


def test_of_a_settled_experiment_nothing_is_collected(settled):
    assert gc(settled) == [] and trashed(settled) == []
    assert settled.resync() == []


def test_what_an_edit_left_behind_is_collected_and_nothing_else(edited):
    before = {r.key: r.status.artifact for r in edited.objects()}
    assert sorted(gc(edited)) == EVERYTHING
    assert trashed(edited) == EVERYTHING and problems(edited) == []
    assert edited.resync() == []
    assert {r.key: r.status.artifact for r in edited.objects()} == before


def test_what_a_needed_artifact_was_made_from_stays(settled):
    settled.apply(experiment_spec(mapping={"minCosine": 0.5}))
    settled.settle()
    assert sorted(gc(settled)) == ["mapping", "steering"]


def test_upstream_stays_although_no_object_names_it_any_more(settled):
    """Only the steering is left, by itself; what it was made from is part of its evidence."""
    with settled.state.database.write() as connection:
        steering = settled.get("france-steering")
        settled_spec = steering.spec
        key = Key("Steering", "default", "alone")
        objects.apply(connection, key, settled_spec, now=0.0)
        record = objects.get(connection, key)
        status = steering.status
        objects.update_status(connection, record, status, steering.wanted_digest)
        objects.remove(connection, Key("Experiment", "default", "france"), now=0.0)
    assert unneeded(settled) == []


def test_what_a_job_is_about_to_read_stays(settled):
    settled.apply(experiment_spec(mapping={"minCosine": 0.5}))
    settled.step_until_running()
    (job,) = [job for job in settled.jobs() if job.state == "running"]
    read = {job.payload[side]["digest"] for side in ("coarse", "fine")}
    with settled.state.database.read() as connection:
        reachable = Reachability(settled.state.artifacts).reachable(connection)
    assert {job.digest, *read} <= reachable
    gc(settled)
    settled.settle()
    assert settled.get("france").ready


def test_the_newest_artifacts_of_each_object_are_kept_on_demand(edited):
    assert unneeded(edited, RetentionPolicy(2, 0.0)) == []
    assert len(unneeded(edited, RetentionPolicy(1, 0.0))) == 5
    edited.delete()
    edited.settle()
    assert len(unneeded(edited, RetentionPolicy(2, 0.0))) == 11, "a deleted object has no history"


def test_a_pin_keeps_whatever_was_made_for_an_object_and_what_it_owns(edited):
    annotate(edited, **{PIN_ANNOTATION: "true"})
    assert unneeded(edited) == []
    annotate(edited)
    assert len(unneeded(edited)) == 5


def test_what_is_young_is_kept(edited):
    young = RetentionPolicy(grace_seconds=86_400.0)
    stock = take_stock(
        edited.state, Reachability(edited.state.artifacts), young, edited.clock.now()
    )
    assert stock.unneeded == [] and len(stock.in_grace) == 5
    assert (stock.needed, stock.needed_bytes > 0) == (6, True)


# -- coming back ---------------------------------------------------------------------------


def test_an_edit_that_is_taken_back_finds_its_artifacts_in_the_trash(edited):
    gc(edited)
    edited.apply(experiment_spec())
    assert edited.settle() == []
    assert edited.get("france").ready and trashed(edited) == [] and problems(edited) == []


def test_half_an_artifact_is_not_taken_back_as_a_whole_one(edited):
    gc(edited)
    for entry in Trash(edited.state.artifacts.root).entries():
        for file in entry.path.rglob("*.json"):
            if file.name != "manifest.json":
                file.unlink()
    edited.apply(experiment_spec())
    assert "capture" in edited.settle()
    assert edited.get("france").ready and problems(edited) == []


def test_the_trash_is_emptied_after_a_while_and_not_before(edited):
    gc(edited)
    trash = Trash(edited.state.artifacts.root)
    trash.empty(edited.clock.now() - 1)
    assert len(trashed(edited)) == 5
    trash.empty(edited.clock.now())
    assert trashed(edited) == []
    edited.apply(experiment_spec())
    assert edited.settle() == EVERYTHING


def test_a_lost_database_is_rebuilt_and_the_trash_gives_back_what_is_wanted(edited):
    gc(edited)
    root = edited.state.path
    edited.state.database.close()
    for file in root.glob("state.db*"):
        file.unlink()
    new = Simulation(root)
    new.apply(experiment_spec())
    assert new.settle() == [] and new.get("france").ready


# -- crashes and races ---------------------------------------------------------------------


@pytest.mark.parametrize("place", ["trash-put", "transaction-commit", "fsync"])
@pytest.mark.parametrize("nth", [1, 3])
def test_a_crash_while_collecting_leaves_nothing_in_between(edited, place, nth, monkeypatch):
    monkeypatch.setattr(collection, "BATCH", 2)
    arrivals = []

    def crash(name):
        arrivals.append(name)
        if arrivals.count(place) == nth:
            raise Crash

    with failpoints.handled_by(crash), pytest.raises(Crash):
        gc(edited)
    edited.restart()
    assert edited.resync() == [] and edited.get("france").ready
    gc(edited)
    assert len(trashed(edited)) == 5 and problems(edited) == []
    edited.apply(experiment_spec())
    assert edited.settle() == []


@pytest.mark.parametrize("place", ["trash-empty", "trash-take-back"])
def test_a_crash_while_emptying_or_taking_back_is_repeated(edited, place):
    gc(edited)

    def crash(name):
        if name == place:
            raise Crash

    with failpoints.handled_by(crash), pytest.raises(Crash):
        if place == "trash-empty":
            Trash(edited.state.artifacts.root).empty(edited.clock.now())
        edited.apply(experiment_spec())
        edited.settle()
    edited.restart()
    edited.apply(experiment_spec())
    edited.settle()
    assert edited.get("france").ready and problems(edited) == []


def test_what_comes_to_be_wanted_between_look_and_commit_is_never_ready_without_bytes(
    edited, monkeypatch
):
    real, left = Observer.observe, [3]

    def collected_after_the_look(self, snapshot, desired, known):
        found = real(self, snapshot, desired, known)
        if left[0] and found.artifact is not None and snapshot.object.key.kind == "Capture":
            left[0] -= 1
            gc(edited)
        return found

    monkeypatch.setattr(Observer, "observe", collected_after_the_look)
    edited.apply(experiment_spec())
    history = History()
    watch(edited, history)
    for _ in range(8):
        edited.step()
        with edited.state.database.read() as connection:
            ready = [r for r in objects.listed(connection) if r.ready and r.status.artifact]
            known = {a.digest for a in artifact_index.listed(connection)}
        assert {r.status.artifact.digest for r in ready} <= known
        assert all(edited.artifact_folder(r.key.name).is_dir() for r in ready)
        edited.workers.complete()
        edited.clock.advance(1.0)
    assert left == [0] and edited.settle() is not None and edited.get("france").ready
    assert watch(edited, history) == []


# -- shards and what was set aside ------------------------------------------------------------


def test_shards_of_a_job_that_nobody_waits_for_are_collected_and_others_stay(settled):
    settled.apply(experiment_spec(prompts=OTHER))
    settled.step_until_running()
    (job,) = [job for job in settled.jobs() if job.state == "running"]
    for digest in (job.digest, "0" * 64):
        folder = settled.state.artifacts.work_folder(digest)
        folder.mkdir(parents=True)
        (folder / "shard").write_text("s")
        os.utime(folder, (1.0, 1.0))
    assert "shards" in gc(settled)
    assert settled.state.artifacts.work_folder(job.digest).exists()
    assert not settled.state.artifacts.work_folder("0" * 64).exists()


def test_what_was_set_aside_is_collected(settled):
    folder = settled.artifact_folder("france-capture")
    (folder / "norms.json").write_text("{")
    settled.resync()
    aside = settled.state.artifacts.root / ".quarantine" / "capture"
    assert len(list(aside.iterdir())) == 1
    settled.clock.time = 2.1e9  # the disk's clock is the real one
    assert gc(settled) == ["capture"] and list(aside.iterdir()) == []
    assert trashed(settled) == ["quarantine"]


# -- by itself -------------------------------------------------------------------------------


def test_a_controller_collects_what_it_has_seen_unneeded_for_the_grace_period(edited):
    retention = Retention(edited.state, RetentionPolicy(0, 3600.0, 7200.0), edited.clock)
    assert retention.run_if_due() == []
    edited.clock.advance(LOOK_SECONDS / 2)
    assert retention.run_if_due() == []
    edited.clock.advance(3600)
    assert len(retention.run_if_due()) == 5
    edited.clock.advance(7200)
    retention.run_if_due()
    assert trashed(edited) == []


def test_a_clock_that_is_set_ahead_makes_nothing_old(edited):
    retention = Retention(edited.state, RetentionPolicy(0, 3600.0, 7200.0), edited.clock)
    assert retention.run_if_due() == []
    edited.clock.set(30 * 86_400)
    edited.clock.advance(LOOK_SECONDS)
    assert retention.run_if_due() == [], "unneeded for ten minutes, whatever the date is"
    edited.clock.advance(3600)
    assert len(retention.run_if_due()) == 5
    edited.clock.set(30 * 86_400)
    edited.clock.advance(LOOK_SECONDS)
    assert retention.run_if_due() == [] and len(trashed(edited)) == 5, "nor the trash"


def test_a_clock_that_is_set_back_keeps_nothing_for_longer(edited):
    retention = Retention(edited.state, RetentionPolicy(0, 3600.0), edited.clock)
    assert retention.run_if_due() == []
    edited.clock.set(-30 * 86_400)
    edited.clock.advance(3600 + LOOK_SECONDS)
    assert len(retention.run_if_due()) == 5


def test_what_is_wanted_in_between_begins_its_grace_period_anew(edited):
    retention = Retention(edited.state, RetentionPolicy(0, 3600.0), edited.clock)
    retention.run_if_due()
    edited.clock.advance(3000)
    edited.apply(experiment_spec())
    edited.settle()
    retention.run_if_due()
    edited.clock.advance(1000)
    edited.apply(experiment_spec(prompts=OTHER))
    edited.settle()
    assert retention.run_if_due() == []
    edited.clock.advance(3700)
    assert len(retention.run_if_due()) == 5


def test_a_disk_that_is_full_stops_no_controller(edited):
    def full(name):
        if name == "trash-put":
            raise OSError(28, "No space left on device")

    retention = Retention(edited.state, NOW, edited.clock)
    with failpoints.handled_by(full):
        assert retention.run_if_due() == []
    assert edited.resync() == [] and edited.get("france").ready
    edited.clock.advance(LOOK_SECONDS)
    assert len(retention.run_if_due()) == 5


# -- the command ----------------------------------------------------------------------------


def paths(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_gc_shows_first_and_changes_nothing(edited, loopscope, tmp_path):
    before = paths(tmp_path / "state" / "artifacts")
    code, out, _ = loopscope("gc", "--grace", "0")
    assert code == 0 and out.count("artifact ") == 5 and "5 things (" in out
    assert "would go to the trash" in out and "repeat it with --yes" in out
    assert "6 artifacts (" in out and paths(tmp_path / "state" / "artifacts") == before


def test_gc_moves_with_yes_and_empties_on_demand(edited, loopscope):
    document = json.loads(loopscope("gc", "--grace", "0", "--yes", "-o", "json")[1])
    assert document["done"] and len(document["collected"]) == 5 and document["needed"] == 6
    assert document["collectedBytes"] == sum(thing["bytes"] for thing in document["collected"])
    assert len(trashed(edited)) == 5
    assert "5 things lie in the trash" in loopscope("fsck")[1]
    assert "5 would be removed for good" in loopscope("gc", "--empty-trash")[1]
    assert len(trashed(edited)) == 5
    assert "5 removed for good" in loopscope("gc", "--empty-trash", "--yes")[1]
    assert trashed(edited) == [] and loopscope("fsck")[0] == 0


def test_gc_keeps_on_demand(edited, loopscope):
    out = loopscope("gc", "--keep-last", 2, "--grace", "0")[1]
    assert out.splitlines()[0] == "0 things (0 B) would go to the trash"


@pytest.mark.parametrize("words", [["--grace", "soon"], ["--keep-last", "-1"], ["-o", "xml"]])
def test_gc_refuses_what_it_does_not_understand(edited, loopscope, words):
    assert loopscope("gc", *words)[0] == 2
