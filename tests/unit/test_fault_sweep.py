"""The 1st, 2nd, 3rd … call at each seam fails once; the loop goes on and ends in the same place.

``make test`` fails every call at the disk and a sample of the statements, with one error each in
turn. ``LOOPSCOPE_SWEEP=all`` fails every call with every error.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopscope.controller.settings import Settings
from loopscope.state.failures import PASSING
from tests.fault_seams import SEAMS, Fault, failing
from tests.simulated import Simulation, experiment_spec, settled_experiment

STRIDE = {"begin": 9, "execute": 50, "failpoint": 6, "commit": 2, "open to read": 5}
"""Every how many calls one is made to fail in ``make test``; the others: every call."""
RESYNC_SECONDS = 1000.0
"""So far apart that no resync comes to the rescue of a wake-up that was lost."""
PRODUCED = ["mapping", "steering"]


def edited(simulation: Simulation) -> None:
    """Damage an artifact and edit the experiment: a whole day's trouble in one go."""
    residual = simulation.artifact_folder("france-mapping") / "directions.safetensors"
    data = bytearray(residual.read_bytes())
    data[len(data) // 2] ^= 1
    residual.write_bytes(bytes(data))
    simulation.clock.advance(simulation.settings.resync_seconds + 1)
    steering = {**experiment_spec()["steering"], "strengths": [0.25]}
    simulation.apply(experiment_spec(steering=steering))


def go_on(simulation: Simulation, steps: int) -> None:
    """Step and let workers work, as long as a settled run takes; workers may die of an error."""
    for _ in range(steps):
        simulation.step()  # must never raise for an error that may pass
        with contextlib.suppress(*PASSING):  # as if the worker had died: its job is unheard of
            simulation.workers.complete()
        simulation.clock.advance(0.5)


def run_with(folder: Path, seam: str, fault: Fault) -> Simulation:
    simulation = settled_experiment(folder)
    simulation.settings = Settings(resync_seconds=RESYNC_SECONDS)
    simulation.restart()
    edited(simulation)
    with failing(seam, fault, folder):
        go_on(simulation, steps=4)
    return simulation


def contents(simulation: Simulation) -> dict[tuple[str, str], str]:
    """Return stage, digest and content digest of every artifact on disk, its hashes checked."""
    artifacts = simulation.state.artifacts
    found = {}
    for manifest in sorted(artifacts.root.glob("[a-z]*/*/manifest.json")):
        stage, digest = manifest.parts[-3:-1]
        record = artifacts.record(stage, digest)
        artifacts.verify(record)
        found[stage, digest] = record.content_digest
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    simulation = settled_experiment(tmp_path_factory.mktemp("undisturbed") / "state")
    edited(simulation)
    assert simulation.settle() == PRODUCED
    return contents(simulation)


def faults(seam: str) -> Iterator[Fault]:
    """Yield one fault after the other, until a run was clean."""
    errors = SEAMS[seam][1]
    everything = os.environ.get("LOOPSCOPE_SWEEP") == "all"
    stride = 1 if everything else STRIDE.get(seam, 1)
    for turn, nth in enumerate(range(1, 100_000, stride)):
        for error in errors if everything else (errors[turn % len(errors)],):
            fault = Fault(nth, error)
            yield fault
        if not fault.fired:
            return


@pytest.mark.parametrize("seam", [name for name in SEAMS if name != "remove"])
def test_whichever_call_fails_nothing_is_lost(seam, undisturbed, tmp_path, record_property):
    fired = 0
    for fault in faults(seam):
        folder = tmp_path / "state"
        simulation = run_with(folder, seam, fault)
        fired += fault.fired
        try:
            check_that_it_recovers(simulation, undisturbed, fault)
        except BaseException as error:
            error.add_note(f"after call {fault.nth} at {seam!r} failed with {fault.error!r}")
            raise
        simulation.state.database.close()
        shutil.rmtree(folder)
    record_property("faults", fired)
    assert fired > 2, "the sweep reached next to nothing"


def check_that_it_recovers(simulation: Simulation, undisturbed: dict, fault: Fault) -> None:
    simulation.settle()
    assert all(record.ready for record in simulation.objects())
    assert contents(simulation) == undisturbed
    # other errors are an attempt of the job where they hit its worker, a full disk never is
    allowed = 0 if fault.error in ("ENOSPC", "database or disk is full") else 1
    assert sum(job.attempts for job in simulation.jobs()) <= allowed, "an attempt is burnt"
    before = simulation.rows()
    simulation.resync()
    assert simulation.rows() == before, "a converged system writes nothing"
