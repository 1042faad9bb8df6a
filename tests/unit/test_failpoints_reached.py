"""Every named place is passed by the step that it is named after."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import loopscope.state.db.events
import loopscope.worker.model_sources
import loopscope.worker.stages.capture.stage
from loopscope.controller.jobs.local_processes import LocalProcesses
from loopscope.controller.maintenance.retention import Retention
from loopscope.controller.plan.applying import apply_all, load_admitted
from loopscope.controller.runtime import running_controller
from loopscope.controller.settings import Settings
from loopscope.controller.sources.folder_source import SECOND_LOOK_SECONDS, FolderSource
from loopscope.inputs.files import HashMemo
from loopscope.reports.bundle import export_bundle
from loopscope.reports.page.writing import write_report
from loopscope.specs.keys import Key
from loopscope.state import failpoints
from loopscope.state.artifacts.collection import RetentionPolicy
from loopscope.state.db import events, jobs, objects
from loopscope.state.failures import JobStopped, TransientFailure
from loopscope.state.folder import open_state
from loopscope.state.orders import Order
from loopscope.views.experiment import ExperimentView
from loopscope.worker.conversion import convert_in_process
from loopscope.worker.lease import Lease
from loopscope.worker.runner import Runner
from loopscope.worker.stop import StopRequest
from tests.simulated import Simulation, capture_spec, settled_experiment
from tests.tiny_experiment import make_experiment
from tests.unit.reports_case import build

EVERYTHING = ["capture", "decomposition", "decomposition", "mapping", "steering"]
Scenario = Callable[[Path, pytest.MonkeyPatch], None]
PLACES: dict[str, tuple[Scenario, set[str]]] = {}


def passes(*names: str) -> Callable[[Scenario], Scenario]:
    def note(scenario: Scenario) -> Scenario:
        PLACES[scenario.__name__] = (scenario, set(names))
        return scenario

    return note


@passes(
    *("transaction-begin", "transaction-commit", "transaction-committed", "plan-committed"),
    *("resolution-record", "job-claimed", "job-collect", "staging-discard", "staging-create"),
    *("manifest-write", "fsync", "replace", "artifact-rename"),
)
def an_experiment_settles(folder, patch):
    simulation = Simulation(folder / "state")
    simulation.apply()
    simulation.settle()


@passes("artifact-set-aside")
def an_artifact_is_damaged(folder, patch):
    simulation = settled_experiment(folder / "state")
    (simulation.artifact_folder("france-capture") / "norms.json").write_text("{")
    simulation.resync()


@passes("job-cancel", "lease-take-back", "object-delete", "job-retry")
def jobs_are_cancelled_lost_and_retried(folder, patch):
    simulation = Simulation(folder / "state")
    simulation.apply()
    simulation.step_until_running()
    simulation.workers.die()
    simulation.clock.advance(2)
    simulation.step()
    simulation.delete()
    simulation.step()
    (job,) = simulation.jobs()
    with simulation.state.database.write() as connection:
        jobs.retry(connection, job.id, now=simulation.clock.now())


@passes("events-trim", "changes-trim")
def tables_are_trimmed(folder, patch):
    patch.setattr(loopscope.state.db.events, "EVENTS_KEPT", 3)
    simulation = Simulation(folder / "state")
    with simulation.state.database.write() as connection:
        for number in range(100):
            key = Key("Capture", "default", f"c{number}")
            objects.apply(connection, key, {"a": number}, now=0.0)
            events.record(connection, key, "Normal", "Ready", str(number), now=0.0)


@passes("object-prune")
def a_file_vanishes_from_a_watched_folder(folder, patch):
    place = folder / "place"
    first, second = make_experiment(place, "one"), make_experiment(place, "two")
    simulation = Simulation(folder / "state")
    apply_all(simulation.state, load_admitted(first.parent, place), now=0.0)
    second.unlink()
    clock = simulation.clock
    source = FolderSource(simulation.state, first.parent, place, lambda: None, clock)
    source.scan_if_due()
    clock.advance(SECOND_LOOK_SECONDS)
    source.scan_if_due()
    assert [r.key.name for r in simulation.objects()] == ["one"]


@passes("trash-put", "trash-take-back", "trash-empty")
def an_artifact_is_collected_comes_back_and_is_emptied(folder, patch):
    simulation = settled_experiment(folder / "state")
    simulation.delete()
    retention = Retention(simulation.state, RetentionPolicy(0, 0.0, 0.0), simulation.clock)
    assert len(retention.run_if_due()) == 5
    simulation.apply()
    assert simulation.settle() == EVERYTHING
    retention = Retention(simulation.state, RetentionPolicy(0, 0.0, 100.0), simulation.clock)
    simulation.delete()
    assert len(retention.run_if_due()) == 5
    simulation.apply()
    assert simulation.settle() == []


@passes("leader-lock")
def a_controller_starts(folder, patch):
    with running_controller(open_state(folder / "state"), Settings()):
        pass


@passes("worker-spawn", "worker-spawned", "job-handed-over", "worker-kill")
def a_worker_gets_a_job(folder, patch):
    state = open_state(folder / "state")
    workers = LocalProcesses(state.path, state.logs, ("cpu",), lambda: None)
    worker = workers.free_worker()
    assert worker is not None
    workers.start(worker, Order(1, 1))
    workers.kill(worker)
    workers.stop()


@passes("hash-memo-replace")
def a_hash_is_remembered(folder, patch):
    file = folder / "weights"
    folder.mkdir(exist_ok=True)
    file.write_text("old")
    patch.setattr(time, "time_ns", lambda: file.stat().st_ctime_ns + 10**11)
    HashMemo(folder / "hashes.json").sha256(file)


@passes(
    *("heartbeat", "progress", "shard-write", "shard-sealed", "artifact-sealed"),
    *("artifact-renamed", "artifact-committed", "work-discard"),
)
def a_worker_runs_a_job(folder, patch):
    beaten = threading.Event()

    def stage(payload, context, out):
        context.progress("Working", 0, 1, "steps")
        context.shards.seal("one", lambda part: part.write_text("1"))
        assert beaten.wait(60)
        (out / "result.json").write_text("{}")
        return {}

    with failpoints.handled_by(lambda name: beaten.set() if name == "heartbeat" else None):
        run_capture(folder, patch, stage)


@passes("job-failure")
def a_job_fails(folder, patch):
    def stage(payload, context, out):
        raise TransientFailure("HubUnreachable", "no network")

    run_capture(folder, patch, stage)


@passes("job-release")
def a_job_is_stopped(folder, patch):
    def stage(payload, context, out):
        raise JobStopped("shutdown")

    run_capture(folder, patch, stage)


def run_capture(folder, patch, stage):
    """Run one claimed capture job with the worker's code around ``stage``."""
    patch.setattr(loopscope.worker.stages.capture.stage, "run", stage)
    simulation = Simulation(folder / "state")
    simulation.apply(capture_spec(), "cap", "Capture")
    simulation.step_until_running()
    ((job_id, token),) = simulation.workers.assigned.values()
    with Lease(simulation.state.database, job_id, token, 0.06, StopRequest(lambda: None)) as lease:
        Runner(simulation.state, "cpu").run(job_id, token, lease)


@passes("conversion-spawn")
def a_converter_is_started(folder, patch):
    (folder / "model").mkdir(parents=True)

    def not_this_time(name):
        if name == "conversion-spawn":
            raise OSError("no process left")

    with failpoints.handled_by(not_this_time), pytest.raises(OSError, match="no process left"):
        convert_in_process(folder / "x.gguf", folder / "model", "float32", lambda percent: None)


@passes("conversion-rename")
def a_model_is_converted(folder, patch):
    patch.setattr(
        loopscope.worker.model_sources,
        "convert_in_process",
        lambda gguf, folder, dtype, still_wanted: (folder / "weights").write_text("w"),
    )
    patch.setattr(loopscope.worker.model_sources, "_gguf_file", lambda *_: folder / "x.gguf")
    ref = {"identity": "a" * 64, "files": {}, "source": {"kind": "gguf"}, "dtype": "float32"}
    loopscope.worker.model_sources.local_model_folder(ref, folder, lambda *progress: None)


@passes("report-write", "bundle-rename")
def results_are_written(folder, patch):
    view = ExperimentView.load(*build(folder))
    write_report(view, folder / "report.html")
    export_bundle(view, folder / "bundle")


@pytest.mark.parametrize("name", PLACES)
def test_a_step_passes_the_places_that_are_named_after_it(name, tmp_path):
    scenario, expected = PLACES[name]
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch, failpoints.handled_by(seen.append):
        scenario(tmp_path / "world", patch)
    assert expected - set(seen) == set()


def test_no_name_is_without_a_step():
    assert set(failpoints.NAMES) == set().union(*(expected for _, expected in PLACES.values()))
