"""A resync reads again what may have changed, and nothing else."""

from __future__ import annotations

import shutil

import pytest

from loopscope.controller.clock import Turns
from loopscope.controller.controller import RESYNC_PAUSE_SECONDS_MAX
from loopscope.controller.reconcile import reconciling
from loopscope.controller.reconcile.converged import READ_AGAIN_SECONDS, Converged
from loopscope.reconcilers.plan import Done, LookAgain, Plan, Snapshot
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.folder_store import FolderStore
from loopscope.state.db import jobs, pauses
from loopscope.state.db.knowledge import knowledge
from loopscope.state.folder import open_state
from tests.hand_built import CAPTURED, made_ready, stored
from tests.simulated import Simulation, VirtualClock, capture_spec, settled_experiment

OBJECTS = 6


@pytest.fixture
def quiet(tmp_path) -> Simulation:
    """A settled experiment; two resyncs found nothing to do."""
    simulation = settled_experiment(tmp_path / "state")
    for _ in range(2):
        assert simulation.resync() == []
    return simulation


@pytest.fixture
def read(monkeypatch) -> list:
    """The keys that were read since."""
    seen: list = []
    original = reconciling.read_snapshot

    def noted(connection, key, now):
        seen.append(key)
        return original(connection, key, now)

    monkeypatch.setattr(reconciling, "read_snapshot", noted)
    return seen


def test_a_resync_of_what_is_in_order_reads_no_object(quiet, read):
    assert quiet.resync() == []
    assert read == []


def test_now_and_then_everything_is_read_again(quiet, read):
    quiet.clock.advance(READ_AGAIN_SECONDS)
    assert quiet.resync() == []
    assert len(set(read)) == OBJECTS


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_makes_nothing_be_read_again(quiet, read, hours):
    quiet.clock.set(hours * 3600)
    assert quiet.resync() == []
    assert read == []


def test_only_the_object_whose_artifact_is_gone_is_read_and_it_runs_again(quiet, read):
    shutil.rmtree(quiet.artifact_folder("france-mapping"))
    quiet.clock.advance(quiet.settings.resync_seconds + 1)
    quiet.step()
    assert read[0] == quiet.get("france-mapping").key
    assert quiet.settle() == ["mapping"]


@pytest.mark.parametrize("name", ["manifest.json", "directions.safetensors"])
def test_a_file_that_became_a_link_is_looked_at(quiet, read, name, tmp_path):
    file = quiet.artifact_folder("france-mapping") / name
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    quiet.resync()
    assert quiet.get("france-mapping").key in read


def test_a_folder_within_an_artifact_that_became_a_link_is_looked_at(quiet, tmp_path):
    record = quiet.get("france-coarse").status.artifact
    with quiet.state.database.read() as connection:
        artifact = artifact_index.get(connection, record.digest)
    nested = next(name for name in artifact.files if "/" in name).split("/")[0]
    folder = quiet.artifact_folder("france-coarse") / nested
    assert quiet.state.artifacts.stands(artifact)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert not quiet.state.artifacts.stands(artifact)


def test_after_a_write_everything_is_read_again(quiet, read):
    with quiet.state.database.write() as connection:
        pauses.pause(connection, "stage/steering", now=quiet.clock.now())
    quiet.resync()
    assert len(set(read)) == OBJECTS


def test_reading_everything_again_takes_a_small_share_of_a_core_and_a_missing_file_waits_for_none(
    quiet, read, monkeypatch
):
    monkeypatch.setattr(quiet.clock, "worked", lambda: float(len(read)))  # a second a look

    def write(stage):
        with quiet.state.database.write() as connection:
            pauses.pause(connection, f"stage/{stage}", now=quiet.clock.now())

    write("steering")
    quiet.resync()
    before = len(read)
    assert len(set(read)) == OBJECTS
    write("mapping")
    quiet.resync()
    assert len(read) == before, "the last ones are not paid off"
    shutil.rmtree(quiet.artifact_folder("france-coarse"))
    quiet.resync()
    assert quiet.get("france-coarse").key in read[before:]
    before = len(read)
    quiet.clock.advance(RESYNC_PAUSE_SECONDS_MAX)
    quiet.resync()
    assert len(set(read[before:])) == OBJECTS


def test_a_heartbeat_is_no_news_to_a_plan(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    simulation.step_until_running()
    job = next(job for job in simulation.jobs() if job.state == "running")
    with simulation.state.database.read() as connection:
        before = knowledge(connection)
    with simulation.state.database.write() as connection:
        jobs.heartbeat(connection, job.id, job.token, 30.0, now=simulation.clock.now() + 5)
    with simulation.state.database.read() as connection:
        assert knowledge(connection) == before
    simulation.workers.complete()
    with simulation.state.database.read() as connection:
        assert knowledge(connection) != before


def test_what_waits_is_read_once_until_something_is_written_or_its_artifact_lies_there(quiet, read):
    with quiet.state.database.write() as connection:
        pauses.pause(connection, "all", now=quiet.clock.now())
    quiet.apply({**quiet.get("france", "Experiment").spec, "hook": "blocks.1.hook_resid_post"})
    for _ in range(3):
        quiet.clock.advance(quiet.settings.resync_seconds + 1)
        quiet.step()
    del read[:]
    quiet.clock.advance(quiet.settings.resync_seconds + 1)
    quiet.step()
    waiting = {record.key for record in quiet.objects() if not record.ready}
    assert waiting and not waiting & set(read)
    capture = quiet.get("france-capture")
    quiet.state.artifacts.folder("capture", capture.wanted_digest).mkdir(parents=True)
    quiet.clock.advance(quiet.settings.resync_seconds + 1)
    quiet.step()
    assert read == [capture.key]
    with quiet.state.database.write() as connection:
        pauses.resume(connection, "all")
    quiet.resync()
    assert waiting <= set(read)


def test_a_place_that_cannot_be_looked_at_ends_no_resync(quiet, read, monkeypatch):
    with quiet.state.database.write() as connection:
        pauses.pause(connection, "all", now=quiet.clock.now())
    quiet.apply({**quiet.get("france", "Experiment").spec, "hook": "blocks.1.hook_resid_post"})
    for _ in range(3):
        quiet.clock.advance(quiet.settings.resync_seconds + 1)
        quiet.step()
    del read[:]

    def refused(*_: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FolderStore, "holds", refused)
    quiet.clock.advance(quiet.settings.resync_seconds + 1)
    quiet.step()
    assert quiet.controller.trouble is None


# -- between resyncs ------------------------------------------------------------------------------


@pytest.fixture
def transactions(quiet, monkeypatch) -> list[str]:
    """The read transactions of the controller since."""
    seen: list[str] = []
    original = quiet.state.database.read

    def noted():
        seen.append("read")
        return original()

    monkeypatch.setattr(quiet.state.database, "read", noted)
    return seen


def test_while_nothing_is_written_a_step_reads_nothing(quiet, transactions):
    quiet.step()  # the last resync wrote nothing, but was no quiet step
    del transactions[:]
    for _ in range(3):
        quiet.clock.advance(0.5)
        quiet.step()
    assert transactions == []


def test_a_write_of_another_process_ends_the_quiet_at_once(quiet, transactions):
    quiet.step()
    other = open_state(quiet.state.path)
    with other.database.write() as connection:
        pauses.pause(connection, "all", now=quiet.clock.now())
    other.database.close()
    del transactions[:]
    quiet.step()
    assert transactions


def test_a_resync_is_not_kept_away_by_quiet(quiet, transactions):
    quiet.step()
    del transactions[:]
    quiet.clock.advance(quiet.settings.resync_seconds + 1)
    quiet.step()
    assert transactions


def test_while_a_job_runs_no_step_is_quiet(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    simulation.step_until_running()
    simulation.step()
    assert not simulation.controller._quiet.lasts()


class Store:
    """Artifacts of which all stand, some have come, and one cannot be looked at."""

    def __init__(self, *held, broken=()):
        self.held, self.broken = set(held), broken

    def stands(self, artifact):
        return True

    def holds(self, stage, digest):
        if digest in self.broken:
            raise OSError("Input/output error")
        return (stage, digest) in self.held


def learnt(store, *plans, ready=False):
    """Return what remembers plans (result, wanted digest) of one capture, and its key."""
    record = stored("Capture", "cap", capture_spec())
    record = made_ready(record, CAPTURED) if ready else record
    remembered = Converged(store, Turns(VirtualClock(), 0.0, 0.005, 600.0))
    for result, wanted in plans:
        plan = Plan(record.status, wanted_digest=wanted, result=result)
        remembered.learn(Snapshot(record, 5.0), plan, CAPTURED if ready else None)
    return remembered, record.key


@pytest.mark.parametrize(
    ("store", "plans", "ready", "stands"),
    [
        (Store(), [(Done(), "w")], False, True),
        (Store(("capture", "w")), [(Done(), "w")], False, False),
        (Store(("capture", "w")), [(Done(), "w")], True, True),
        (Store(("capture", "w")), [(Done(), None)], False, True),
        (Store(broken=("w",)), [(Done(), "w")], False, True),
        (Store(), [(LookAgain("x"), "w")], False, False),
        (Store(), [(Done(), "w"), (LookAgain("x"), "w")], False, False),
    ],
)
def test_what_waits_is_read_again_when_its_artifact_has_come_or_its_plan_was_not_done(
    store, plans, ready, stands
):
    remembered, key = learnt(store, *plans, ready=ready)
    assert remembered._stands(key, set()) is stands
