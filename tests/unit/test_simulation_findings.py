"""What the simulation found wrong, each as a short story of its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from loopscope.controller.controller import Controller
from loopscope.controller.reconcile.resolution import Resolver
from loopscope.controller.settings import Settings
from loopscope.specs.canonical import digest
from loopscope.state import failpoints
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.manifests import MANIFEST, content_digest
from loopscope.state.artifacts.publication import verified_folder
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.db import jobs, objects, tables
from loopscope.state.files import file_sha256
from tests.simulated import (
    Crash,
    Immediately,
    SimulatedWorkers,
    Simulation,
    capture_spec,
    experiment_spec,
)
from tests.simulation.faulty_disk import FaultyDisk


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def crash_at(place, after=None):
    """Return a handler that ends the process at a failpoint, once another was reached."""
    seen = set()

    def crash(name):
        seen.add(name)
        if name == place and (after is None or after in seen):
            raise Crash

    return failpoints.handled_by(crash)


def test_no_object_stays_ready_when_the_controller_dies_after_setting_its_artifact_aside(settled):
    flip_a_bit(settled.artifact_folder("france-fine") / "features.parquet")
    damaged = settled.get("france-fine").status.artifact.digest
    settled.clock.advance(60)
    with crash_at("transaction-committed", "artifact-set-aside"), pytest.raises(Crash):
        settled.step()
    with settled.state.database.read() as connection:
        assert artifact_index.get(connection, damaged) is None
    assert settled.reason("france-fine") == "ArtifactDamaged"
    settled.restart()
    assert settled.settle() == ["decomposition"]
    assert settled.get("france").ready


def test_who_shares_a_missing_artifact_is_told_in_the_same_transaction(settled):
    settled.apply(settled.get("france-capture").spec, "twin", "Capture")
    settled.settle()
    settled.settings = Settings(verify_bytes_per_resync=0)
    settled.restart()
    shutil.rmtree(settled.artifact_folder("twin"))
    with crash_at("plan-committed"), pytest.raises(Crash):
        settled.step()
    assert not settled.get("twin").ready
    assert not settled.get("france-capture").ready


def test_a_worker_refuses_an_input_that_was_forged_together_with_its_manifest(settled):
    folder = settled.artifact_folder("france-capture")
    name = "residual.safetensors"
    flip_a_bit(folder / name)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name]["sha256"] = file_sha256(folder / name)
    manifest["contentDigest"] = content_digest(manifest["files"])
    rest = {field: value for field, value in manifest.items() if field != "manifestDigest"}
    (folder / MANIFEST).write_text(json.dumps({**rest, "manifestDigest": digest(rest)}))
    assert settled.state.artifacts.whole("capture", folder.name) is not None
    with pytest.raises(Corrupt, match="not the one that was recorded"):
        verified_folder(settled.state, "capture", folder.name)


def test_a_published_artifact_survives_a_power_cut_folders_and_all(tmp_path):
    (tmp_path / "state").mkdir()
    disk = FaultyDisk(tmp_path)
    with disk.watched():
        simulation = Simulation(tmp_path / "state" / "new")
        disk.trust()
        simulation.apply()
        simulation.settle()
        with simulation.state.database.read() as connection:
            known = artifact_index.listed(connection)
        disk.cut_power(lambda: False)
    assert len(known) == 6
    for record in known:
        simulation.state.artifacts.verify(record)


def test_an_artifact_that_is_taken_over_survives_a_power_cut(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply(capture_spec(), "cap", "Capture")
    simulation.step_until_running()
    disk = FaultyDisk(tmp_path)
    with disk.watched():
        with crash_at("fsync", "artifact-rename"), pytest.raises(Crash):
            simulation.workers.complete()  # renamed, but never forced to the disk
        simulation.step()
        assert simulation.get("cap").ready
        disk.cut_power(lambda: False)
    with simulation.state.database.read() as connection:
        (known,) = artifact_index.listed(connection)
    simulation.state.artifacts.verify(known)


def test_a_reader_that_is_told_gone_looks_at_everything_before_it_is_idle(settled):
    settled.step()  # the resync of a new controller, which looks at everything anyway
    settled.apply(capture_spec(), "late", "Capture")
    with settled.state.database.write() as connection:
        newest = objects.resource_version(connection)
        log = tables.changes
        connection.execute(log.delete().where(log.c.resource_version <= newest))
    assert settled.controller._version == newest - 1
    settled.step()
    record = settled.get("late")
    assert record.status.observed_generation == record.generation


def test_two_controllers_keep_one_rate_even_when_a_job_comes_back_at_once(tmp_path):
    simulation = Simulation(tmp_path / "state", job_starts_per_minute=1)
    simulation.apply(capture_spec(), "cap", "Capture")
    other = Controller(
        simulation.state,
        simulation.settings,
        simulation.clock,
        SimulatedWorkers(simulation.state, simulation.clock),
        Resolver(Immediately(), lambda: None, simulation.inputs.resolve),
    )
    states = []

    def meanwhile(name):
        if name != "transaction-begin" or states or not simulation.jobs():
            return
        states.append("between the count of the starts and the claim")
        other.step()
        (job,) = simulation.jobs()
        states.append(job.state)
        with simulation.state.database.write() as connection:
            jobs.release(connection, job.id, job.token)

    with failpoints.handled_by(meanwhile):
        simulation.step()
    assert states[1:] == ["running"]
    assert len(simulation.rows()["job_starts"]) == 1


def test_a_job_waits_for_an_input_that_is_being_made_again_however_long_that_takes(settled):
    steering = {**settled.get("france").spec["steering"], "strengths": [0.75]}
    settled.apply(experiment_spec(steering=steering))
    settled.step_until_running()
    shutil.rmtree(settled.artifact_folder("france-mapping"))
    for _ in range(8):
        assert settled.workers.complete() == ["steering"]
        (job,) = (job for job in settled.jobs() if job.state == "pending")
        assert (job.reason, job.attempts) == ("InputDamaged", 0)
        with settled.state.database.write() as connection:
            claimed = jobs.claim(connection, job.id, "w", 30.0, now=settled.clock.now())
        (given,) = (o for o in settled.workers.orders.values() if o.token == job.token)
        settled.workers.start("w", replace(given, token=claimed.token))
    settled.workers.complete()
    assert sorted(settled.settle()) == ["mapping", "steering"]
    assert settled.get("france").ready
