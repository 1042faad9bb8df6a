"""Whatever breaks, the loop comes back to the same place, and repeats nothing that had finished."""

import shutil
import threading
from dataclasses import replace

import pytest

from loopscope.controller.jobs.limits import WINDOW_SECONDS
from loopscope.controller.observer import Unobserved
from loopscope.controller.reconcile.adoption import StillHashing
from loopscope.controller.reconcile.commit import commit
from loopscope.controller.reconcile.resolution import resolve
from loopscope.controller.reconcile.snapshots import read_snapshot
from loopscope.controller.settings import Settings
from loopscope.reconcilers import experiment
from loopscope.reconcilers.plan import Done, Failed, LookAgain, Plan
from loopscope.reconcilers.references import InputReference
from loopscope.specs.keys import Key
from loopscope.specs.status import Status
from loopscope.state import failpoints
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.db import jobs, objects, pauses
from loopscope.state.failures import TransientFailure
from loopscope.worker.lease import Lease
from loopscope.worker.stop import StopRequest
from tests.simulated import Simulation, capture_spec, experiment_spec, texts

PRODUCES = {
    "capture": "capture",
    "coarse": "decomposition",
    "fine": "decomposition",
    "mapping": "mapping",
    "steering": "steering",
}
BIGGEST = {
    "capture": "residual.safetensors",
    "coarse": "features.parquet",
    "fine": "tables/activations.safetensors",
    "mapping": "directions.safetensors",
    "steering": "scores.json",
}


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def delete_artifact(path):
    shutil.rmtree(path.parent)


def delete_manifest(path):
    (path.parent / "manifest.json").unlink()


# -- artifacts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "harm"),
    [
        ("capture", delete_artifact),
        ("coarse", flip_a_bit),
        ("fine", truncate),
        ("mapping", delete_manifest),
        ("steering", flip_a_bit),
    ],
)
def test_a_harmed_artifact_is_noticed_and_only_its_producer_runs_again(settled, stage, harm):
    before = {r.key: (r.status.artifact, r.generation) for r in settled.objects()}
    harm(settled.artifact_folder(f"france-{stage}") / BIGGEST[stage])
    assert settled.resync() == [PRODUCES[stage]]
    assert {r.key: (r.status.artifact, r.generation) for r in settled.objects()} == before
    assert all(record.ready for record in settled.objects())
    settled.state.artifacts.verify(record_of(settled, f"france-{stage}"))
    if harm is not delete_artifact:
        assert "ArtifactDamaged" in settled.event_reasons(f"france-{stage}")


def record_of(simulation, name):
    reference = simulation.get(name).status.artifact
    return simulation.state.artifacts.record(reference.stage, reference.digest)


def test_no_object_is_ready_while_its_artifact_is_missing(settled):
    delete_artifact(settled.artifact_folder("france-fine") / "manifest.json")
    settled.clock.advance(60)
    settled.step_until_running()
    not_ready = {record.key.name for record in settled.objects() if not record.ready}
    assert not_ready >= {"france-fine", "france-mapping", "france-steering", "france"}
    assert settled.get("france-coarse").ready


def test_an_artifact_that_nobody_indexed_is_adopted_without_a_run(settled):
    record = record_of(settled, "france-fine")
    with settled.state.database.write() as connection:
        artifact_index.forget(connection, record.digest)
    assert settled.resync() == []
    with settled.state.database.read() as connection:
        assert artifact_index.get(connection, record.digest) == record


def test_a_corrupt_artifact_that_nobody_indexed_is_not_adopted(settled):
    record = record_of(settled, "france-fine")
    with settled.state.database.write() as connection:
        artifact_index.forget(connection, record.digest)
    flip_a_bit(settled.artifact_folder("france-fine") / BIGGEST["fine"])
    assert settled.resync() == ["decomposition"]
    again = record_of(settled, "france-fine")
    settled.state.artifacts.verify(again)
    assert again.content_digest == record.content_digest


@pytest.mark.parametrize("harm", [delete_artifact, truncate, delete_manifest])
def test_harm_that_shows_without_hashing_is_noticed_at_each_look(settled, harm):
    settled.settings = Settings(verify_bytes_per_resync=0)
    settled.restart()
    record = record_of(settled, "france-coarse")
    harm(settled.artifact_folder("france-coarse") / BIGGEST["coarse"])
    settled.step_until_running()
    assert not settled.get("france-coarse").ready
    with settled.state.database.read() as connection:
        assert artifact_index.get(connection, record.digest) is None
    assert settled.settle() == ["decomposition"]
    assert settled.get("france").ready


def test_a_foreign_artifact_under_the_right_name_is_not_adopted(capture, tmp_path):
    capture.step_until_running()
    (job,) = capture.jobs()
    capture.workers.complete()
    folder = capture.state.artifacts.folder("capture", job.digest)
    folder.rename(folder.with_name("0" * 64))
    with pytest.raises(Corrupt):
        capture.state.artifacts.record("capture", "0" * 64)


# -- the controller -----------------------------------------------------------------


def test_a_controller_that_restarts_after_every_step_repeats_no_finished_stage(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    ran = []
    for _ in range(30):
        simulation.step()
        simulation.restart()
        ran += simulation.workers.complete()
        simulation.clock.advance(1)
        if len(ran) == 6 and simulation.is_settled():
            break
    assert ran == ["capture", "decomposition", "decomposition", "geometry", "mapping", "steering"]
    assert simulation.settle() == []
    assert len(simulation.jobs()) == 6


def test_the_rate_limit_is_never_exceeded_and_outlives_a_restart(tmp_path):
    simulation = Simulation(tmp_path / "state", slots=9, job_starts_per_minute=2)
    for number in range(5):
        hook = f"blocks.{number % 4}.hook_resid_{'pre' if number < 4 else 'post'}"
        simulation.apply(capture_spec(hook=hook), f"cap-{number}", "Capture")
    for _ in range(12):
        simulation.step()
        simulation.workers.complete()
        simulation.restart()
        simulation.clock.advance(13)
    starts = sorted(row[2] for row in simulation.rows()["job_starts"])
    assert len(starts) == 5
    for start in starts:
        assert sum(start <= other < start + WINDOW_SECONDS for other in starts) <= 2


def test_never_more_jobs_run_than_there_are_slots(tmp_path):
    simulation = Simulation(tmp_path / "state", slots=2)
    for number in range(4):
        spec = capture_spec(hook=f"blocks.{number}.hook_resid_post")
        simulation.apply(spec, f"cap-{number}", "Capture")
    simulation.step_until_running()
    assert [job.state for job in simulation.jobs()].count("running") == 2
    assert simulation.settle() == ["capture"] * 4


# -- inputs ---------------------------------------------------------------------------


def test_an_input_that_cannot_be_had_now_is_asked_for_again_later(capture):
    no_network = {"facts": None, "reason": "HubUnreachable", "message": "no network"}
    capture.inputs.answers["tiny"] = no_network
    capture.step()
    capture.step()
    assert capture.reason("cap") == "Resolving" and not capture.get("cap").stalled
    assert "no network" in capture.words()["cap"]
    del capture.inputs.answers["tiny"]
    capture.clock.advance(capture.settings.resolve_retry_seconds + 1)
    assert capture.settle() == ["capture"]


def test_an_input_that_is_refused_stalls_until_it_is_mended(capture):
    wrong = {"facts": None, "reason": "InputRefused", "message": "sha256 differs", "terminal": True}
    capture.inputs.answers["tiny"] = wrong
    assert capture.settle() == []
    assert capture.get("cap").stalled and capture.reason("cap") == "InputRefused"
    del capture.inputs.answers["tiny"]
    assert capture.resync() == ["capture"]


def test_a_model_whose_files_changed_is_captured_again(settled):
    settled.inputs.identity["tiny"] = "other bytes"
    ran = settled.resync()
    assert ran.count("capture") == 1 and ran.count("decomposition") == 2
    assert settled.get("france").ready


def test_a_hook_beyond_the_last_layer_is_a_mismatch_with_advice(capture):
    capture.inputs.layers = 2
    capture.settle()
    assert capture.reason("cap") == "InputMismatch"
    assert "blocks.0 to blocks.1" in capture.words()["cap"]


def test_a_child_that_vanishes_between_plan_and_commit_is_no_error(settled):
    settled.apply(experiment_spec(steering=None))
    now = settled.clock.now()
    with settled.state.database.read() as connection:
        snapshot = read_snapshot(connection, Key("Experiment", "default", "france"), now)
    plan = experiment.plan(snapshot)
    assert [key.name for key in plan.remove] == ["france-steering"]
    with settled.state.database.write() as connection:
        objects.remove(connection, plan.remove[0], now=now)
    with settled.state.database.write() as connection:
        commit(connection, settled.state.artifacts, snapshot, plan, now)
    assert settled.settle() == []
    assert settled.get("france").ready


def test_a_plan_from_a_snapshot_that_aged_is_refused_as_a_whole(settled):
    key = Key("Experiment", "default", "france")
    with settled.state.database.read() as connection:
        snapshot = read_snapshot(connection, key, settled.clock.now())
    settled.apply(experiment_spec(maxTokens=99))
    before = settled.rows()
    plan = replace(experiment.plan(snapshot), wanted_digest="other")
    with pytest.raises(objects.Conflict), settled.state.database.write() as connection:
        commit(connection, settled.state.artifacts, snapshot, plan, settled.clock.now())
    assert settled.rows() == before


def test_a_resolution_that_fails_in_an_unforeseen_way_ends_nothing(monkeypatch):
    def odd(reference):
        raise ZeroDivisionError("odd header")

    monkeypatch.setattr("loopscope.controller.reconcile.resolution.describe_model", odd)
    found = resolve(InputReference("model", {"name": "x"}))
    assert (found.facts, found.reason, found.terminal) == (None, "UnexpectedError", False)
    assert "odd header" in found.message


def test_a_heartbeat_that_fails_once_is_followed_by_the_next(capture, monkeypatch):
    capture.step_until_running()
    ((job_id, token),) = capture.workers.assigned.values()
    beats, done = [], threading.Event()

    def refuse_the_first(*args, **kwargs):
        beats.append(1)
        if len(beats) == 1:
            raise TransientFailure("DatabaseBusy", "held by another process")
        done.set()

    monkeypatch.setattr(jobs, "heartbeat", refuse_the_first)
    with Lease(capture.state.database, job_id, token, 0.06, StopRequest(lambda: None)):
        assert done.wait(60)


def test_of_a_plan_that_fails_half_way_nothing_is_written(capture, monkeypatch):
    def refused(*_args, **_values):
        raise RuntimeError("the job table is gone")

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "enqueue", refused)
        for _ in range(5):
            capture.step()
            capture.clock.advance(1.0)
    assert "the job table is gone" in str(capture.rows()["events"]), "it was never tried"
    assert capture.get("cap").wanted_digest is None, "half of the plan was written"
    capture.clock.advance(1000.0)
    assert capture.settle() == ["capture"]


@pytest.fixture
def processed(tmp_path):
    """Return a function that lets a reconcile end in some way; it returns what followed."""
    simulation = Simulation(tmp_path / "state")
    controller, key = simulation.controller, Key("Capture", "default", "cap")
    simulation.apply(capture_spec(), "cap", "Capture")
    seen = []
    watching = Unobserved()
    watching.reconciled = lambda *a: seen.append((a[0], a[1]))
    controller.watch_with(watching)

    def process(end):
        def reconcile(key):
            if isinstance(end, Exception):
                raise end
            return Plan(Status(), result=end)

        controller._reconciling._reconcile = reconcile
        raised = None
        try:
            controller._reconciling.process(key)
        except Exception as error:
            raised = error
        at_once = controller.queue.take()
        simulation.clock.advance(2000)
        later = controller.queue.take()
        for taken in (at_once, later):
            if taken is not None:
                controller.queue.done(taken)
        assert seen[-1][0] == key
        return seen.pop()[1], raised, at_once == key, later == key, simulation.event_reasons("cap")

    return process


@pytest.mark.parametrize(
    ("end", "word", "raised", "at_once", "later", "events"),
    [
        (Done(), "success", False, False, False, 0),
        (Failed("JobFailed", terminal=True), "success", False, False, False, 0),
        (Failed("JobFailed", terminal=False), "requeue", False, False, True, 0),
        (LookAgain("x", at_once=True), "requeue_after", False, True, False, 0),
        (LookAgain("x"), "requeue_after", False, False, True, 0),
        (objects.Conflict("it was changed"), "requeue", False, False, True, 0),
        (StillHashing(), "requeue_after", False, False, False, 0),
        (TransientFailure("DatabaseBusy", "held"), "error", True, False, True, 0),
        (ZeroDivisionError("odd"), "error", False, False, True, 1),
    ],
)
def test_an_object_is_reconciled_again_as_its_plan_or_its_trouble_asks(
    processed, end, word, raised, at_once, later, events
):
    result, error, was_at_once, was_later, reasons = processed(end)
    assert (result, error is not None) == (word, raised)
    assert (was_at_once, was_later) == (at_once, later)
    assert reasons.count("ReconcileError") == events


def test_of_jobs_that_start_together_none_starts_after_everything_was_paused(tmp_path):
    """One reading of the queue serves several starts; what happens in between counts."""
    simulation = Simulation(tmp_path / "state", slots=3)
    for number in range(3):
        spec = capture_spec(prompts={"target": texts(f"a {number}"), "neutral": texts("b")})
        simulation.apply(spec, name=f"cap{number}", kind="Capture")

    def pause_everything(name):
        if name == "job-claimed":
            with simulation.state.database.write() as connection:
                pauses.pause(connection, pauses.EVERYTHING, now=simulation.clock.now())

    with failpoints.handled_by(pause_everything):
        simulation.step_until_running()
        simulation.step()
    assert len(simulation.workers.assigned) == 1
    with simulation.state.database.write() as connection:
        pauses.resume(connection)
    simulation.step()
    assert len(simulation.workers.assigned) == 3
