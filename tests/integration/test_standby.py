"""Two controllers on one state folder: the second waits, and takes over when the first dies."""

import json
import signal
import time

import pytest

from tests.integration.real import Place, eventually

pytestmark = pytest.mark.integration


def controller_pid(place):
    """Return the process that controls, as anybody can ask."""
    code, output = place.call("queue", "-o", "json")
    found = json.loads(output)["controller"] if code == 0 else None
    return int(found["process"].split("@")[0]) if found else None


def leader_in_database(place):
    rows = place.rows().get("controllers", [])
    return int(rows[0][1].split("@")[0]) if rows else None


@pytest.fixture
def pair(tmp_path):
    place = Place(tmp_path)
    place.write()
    first = place.start("controller")
    eventually(lambda: leader_in_database(place) == first.pid)
    second = place.start("controller")
    yield place, first, second
    for process in (first, second):
        process.kill()
        process.communicate()


def test_the_second_stands_by_and_takes_over_within_seconds_after_a_kill(pair):
    place, first, second = pair
    time.sleep(3)  # long enough for the second to try
    assert second.poll() is None and leader_in_database(place) == first.pid
    first.send_signal(signal.SIGKILL)
    eventually(lambda: leader_in_database(place) == second.pid)
    assert controller_pid(place) == second.pid
    code, output = place.call("apply", "-f", str(place.specs), "--root", str(place.folder))
    assert code == 0, output
    eventually(lambda: len(place.rows()["objects"]) > 1)  # it made what the experiment owns


def test_a_standby_that_is_interrupted_ends_and_leaves_the_first_alone(pair):
    place, first, second = pair
    assert any("standing by" in line for line in iter(second.stdout.readline, ""))
    second.send_signal(signal.SIGINT)
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0, output
    assert first.poll() is None and leader_in_database(place) == first.pid
