"""kill -9 at the worst moments: run again, and it settles without repeating what was finished."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.real import Place, eventually, workers_of

pytestmark = pytest.mark.integration

STAGES = ["capture", "decomposition", "decomposition", "geometry", "mapping", "steering"]
IN_CONTROLLER = ("job-claimed",)
IN_WORKER = ("shard-sealed",)
"""One of each; tests/chaos/test_failpoints_reached.py has every place that there is."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    place.write()
    place.settle()
    return place


@pytest.mark.parametrize("failpoint", [*IN_CONTROLLER, *IN_WORKER])
def test_a_process_killed_at_each_failpoint_loses_and_doubles_nothing(
    undisturbed: Place, tmp_path: Path, failpoint: str
) -> None:
    place = Place(undisturbed.folder)
    place = _fresh_state(place, tmp_path)
    run = place.start("run", str(place.specs), "--root", str(place.folder), failpoint=failpoint)
    if failpoint in IN_CONTROLLER:
        run.communicate(timeout=180)
        assert run.returncode == -signal.SIGKILL
    else:
        eventually(lambda: "lost its worker" in str(place.rows().get("events")))
        run.kill()
        run.communicate()
    eventually(lambda: workers_of(place) == [], seconds=60)
    place.settle()
    assert place.payloads() == undisturbed.payloads()
    _each_stage_succeeded_once(place)


def test_controller_and_worker_killed_while_steering_settle_with_the_same_bytes(
    undisturbed: Place, tmp_path: Path
) -> None:
    place = _fresh_state(undisturbed, tmp_path)
    run = place.start("run", str(place.specs), "--root", str(place.folder))
    eventually(lambda: _running_stage(place) == "steering")
    run.kill()
    for worker in workers_of(place):
        worker.kill()
    run.communicate()
    place.settle()
    assert place.payloads() == undisturbed.payloads()
    _each_stage_succeeded_once(place)


def _fresh_state(place: Place, tmp_path: Path) -> Place:
    """The same specs and inputs under another state folder."""

    class Elsewhere(Place):
        @property
        def state(self) -> Path:
            return tmp_path / "state"

    return Elsewhere(place.folder)


def _running_stage(place: Place) -> str | None:
    for row in place.rows().get("jobs", []):
        if "running" in row:
            return next(v for v in row if v in STAGES)
    return None


def _each_stage_succeeded_once(place: Place) -> None:
    ended = Counter((job["digest"], job["state"]) for job in place.jobs())
    assert all(state == "succeeded" and count == 1 for (_, state), count in ended.items()), ended
    assert len(ended) == len(STAGES)
