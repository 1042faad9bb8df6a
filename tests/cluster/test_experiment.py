"""A tiny experiment whose state lies on PostgreSQL: the same artifacts, and nothing lost."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from loopscope.state.folder import keep_database_at
from tests.integration.real import Place, eventually, workers_of
from tests.postgres_server import PostgresServer, running_server, server_programs


class Served(Place):
    """A place whose database is on a server."""

    def jobs(self) -> list[dict[str, Any]]:
        code, output = self.call("queue", "--all", "-o", "json")
        assert code == 0, output
        return json.loads(output)["jobs"]  # type: ignore[no-any-return]


def place_on(server: PostgresServer, folder: Path) -> Place:
    """Return a tiny experiment in a folder whose database is a new one on the server."""
    folder.mkdir(exist_ok=True)
    place = Served(folder)
    keep_database_at(place.state, server.new_database())
    place.write()
    return place


def leader_of(place: Place) -> int | None:
    code, output = place.call("queue", "-o", "json")
    found = json.loads(output)["controller"] if code == 0 else None
    return int(found["process"].split("@")[0]) if found else None


@pytest.fixture
def own_server(postgres: PostgresServer):
    """A server of the test's own, which may be killed."""
    programs = server_programs()
    assert programs is not None
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = Place(tmp_path_factory.mktemp("disk"))
    place.write()
    place.settle()
    return place.payloads()


def test_the_artifacts_are_those_of_a_state_on_disk_and_a_second_run_does_nothing(
    postgres, tmp_path, on_disk
):
    place = place_on(postgres, tmp_path)
    place.settle()
    assert place.payloads() == on_disk
    count = len(place.jobs())
    place.settle()
    assert place.stages_since(count) == []
    assert not (place.state / "state.db").exists()


def test_a_snapshot_moves_a_state_between_the_two_and_back(postgres, tmp_path, on_disk):
    there = place_on(postgres, tmp_path / "there")
    there.settle()
    code, output = there.call("snapshot", str(tmp_path / "moved"))
    assert code == 0, output
    here = Place(tmp_path / "here")
    here.folder.mkdir()
    for source, target in ((there, here), (here, place_on(postgres, tmp_path / "back"))):
        target.state.mkdir(exist_ok=True)
        (source.state / "artifacts").rename(target.state / "artifacts")
        code, output = target.call("restore", str(tmp_path / "moved"))
        assert code == 0, output
        code, output = target.call("fsck")
        assert code == 0, output
        code, output = target.call("get", "experiments")
        assert "tiny" in output, output
    assert target.payloads() == on_disk


def test_a_server_that_dies_is_waited_for_and_no_work_is_lost(own_server, tmp_path, on_disk):
    place = place_on(own_server, tmp_path)
    running = place.start("run", str(place.specs), "--root", str(place.folder))
    eventually(place.payloads)
    for _ in range(3):
        own_server.kill()
        time.sleep(1)
        own_server.start()
        time.sleep(1)
    output, _ = running.communicate(timeout=300)
    assert running.returncode == 0, output + place.worker_log()
    assert place.payloads() == on_disk
    with psycopg.connect(own_server.conninfo("d1")) as connection:
        counted = connection.execute("select count(*) from loopscope.jobs").fetchone()
    assert counted is not None and counted[0] >= len(on_disk)


def test_a_stopped_leader_is_followed_within_ten_seconds_and_changes_nothing_when_it_wakes(
    postgres, tmp_path
):
    place = place_on(postgres, tmp_path)
    first = place.start("controller")
    eventually(lambda: leader_of(place) == first.pid)
    second = place.start("controller")
    assert any("standing by" in line for line in iter(second.stdout.readline, ""))
    first.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: leader_of(place) == second.pid)
        first.send_signal(signal.SIGCONT)
        code, output = place.call("apply", "-f", str(place.specs), "--root", str(place.folder))
        assert code == 0, output
        output, _ = first.communicate(timeout=120)
        assert first.returncode != 0 and "another controller leads" in output
        assert second.poll() is None and leader_of(place) == second.pid
    finally:
        for process in (first, second):
            end(process)
        for worker in workers_of(place):
            worker.kill()


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.communicate()
