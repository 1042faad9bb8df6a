"""Workers, actors, raylets and nodes of a Ray cluster are killed: nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loopscope.controller.jobs.leases import take_back
from loopscope.controller.jobs.scheduling import Place as Slot
from loopscope.controller.settings import Settings
from loopscope.state.db import jobs
from loopscope.state.failpoints import LOG_VARIABLE, VARIABLE
from loopscope.state.retry_policy import RetryPolicy
from tests.conformance.test_executors import OBEDIENT
from tests.integration.real import Place, eventually
from tests.integration.real_worker import RealWorker
from tests.ray_cluster import Nodes, executor_on, workers_in
from tests.simulated import new_state
from tests.tiny_models import folder_reference

NOTICED_SECONDS = 10.0
"""What is promised is 3; a busy machine may take longer, and how long is recorded."""


@pytest.fixture
def marked(ray_nodes: Nodes):
    """Adds nodes that have a mark, on which alone a test's workers may start."""
    made: list[Any] = []

    def add() -> Any:
        made.append(ray_nodes.add(mark=8))
        return made[-1]

    yield add
    for node in made:
        ray_nodes.remove(node)


def kill_worker(nodes: Nodes, node: Any, worker: psutil.Process) -> None:
    worker.kill()


def kill_actor(nodes: Nodes, node: Any, worker: psutil.Process) -> None:
    worker.parent().kill()


def kill_raylet(nodes: Nodes, node: Any, worker: psutil.Process) -> None:
    nodes.raylet(node).kill()


def stop_raylet(nodes: Nodes, node: Any, worker: psutil.Process) -> None:
    nodes.raylet(node).suspend()


def kill_node(nodes: Nodes, node: Any, worker: psutil.Process) -> None:
    for process in (nodes.raylet(node), worker.parent(), worker):
        process.kill()


WAYS = [kill_worker, kill_actor, kill_raylet, stop_raylet, kill_node]


@pytest.mark.parametrize("break_", WAYS, ids=lambda way: way.__name__)
def test_a_loss_is_noticed_in_seconds_and_another_worker_comes_where_there_is_room(
    break_, ray_nodes, ray_cluster, marked, tmp_path, record_property
):
    node = marked()
    state = new_state(tmp_path / "state")
    command = (sys.executable, "-S", "-c", OBEDIENT, str(tmp_path))
    asked = Settings(ray_resources={"mark": 1})
    executor = executor_on(ray_cluster, state, asked, *command)
    worker = executor.free_worker(Slot("cpu"))
    assert worker is not None
    (process,) = workers_in(tmp_path)
    other = marked()
    began = time.monotonic()
    break_(ray_nodes, node, process)
    eventually(lambda: not executor.is_alive(worker), NOTICED_SECONDS)
    record_property("noticed_seconds", round(time.monotonic() - began, 2))
    executor.kill(worker)
    eventually(lambda: executor.places() == (Slot("cpu"),))
    again = eventually(lambda: executor.free_worker(Slot("cpu")))
    assert again != worker and executor.is_alive(again)
    assert other
    executor.stop()
    for one in workers_in(tmp_path):  # the orphan of a raylet that was only stopped
        one.kill()


def test_the_late_result_of_a_worker_that_ray_called_dead_does_not_count(
    ray_nodes, ray_cluster, marked, tmp_path, rope_model_folder, monkeypatch
):
    """Its raylet is stopped. It lives on, and comes back when another has done its job."""
    arrivals = tmp_path / "arrivals"
    monkeypatch.setenv("LOOPSCOPE_TORCH_THREADS", "1")
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    work = RealWorker(tmp_path, folder_reference(rope_model_folder))
    node = marked()
    asked = Settings(ray_resources={"mark": 1})

    def given_to(executor: Any) -> str:
        worker = executor.free_worker(Slot("cpu"))
        with work.state.database.write() as connection:
            job = jobs.claim(connection, work.job_id, worker, 600.0, now=time.time())
        executor.start(worker, work.order(job))
        return str(worker)

    with monkeypatch.context() as at_its_end:
        at_its_end.setenv(VARIABLE, "artifact-sealed:stop@1")
        at_its_end.setenv(LOG_VARIABLE, str(arrivals))
        first_executor = executor_on(ray_cluster, work.state, asked)
        first = given_to(first_executor)
        (orphan,) = workers_in(work.state.path)
        eventually(lambda: orphan.status() == psutil.STATUS_STOPPED)
    actor = orphan.parent()
    ray_nodes.raylet(node).suspend()
    eventually(lambda: not first_executor.is_alive(first), NOTICED_SECONDS)
    assert actor.is_running() and orphan.is_running()
    with work.state.database.write() as connection:
        lost = jobs.head(connection, work.job_id)
        take_back(connection, lost, RetryPolicy(), time.time())
    marked()
    second_executor = executor_on(ray_cluster, work.state, asked)
    given_to(second_executor)
    eventually(lambda: work.job().state == "succeeded")
    manifest = work.state.artifacts.folder("capture", work.digest) / "manifest.json"
    published = manifest.read_bytes()

    before = len(arrivals.read_text().splitlines())
    orphan.resume()
    eventually(lambda: "transaction-begin" in "".join(arrivals.read_text().splitlines()[before:]))
    second_executor.stop()
    actor.kill()  # its worker ends through the pipe of orders, having done what it can
    eventually(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)
    late = arrivals.read_text().splitlines()[before:]
    assert not any("artifact-rename" in line or "artifact-committed" in line for line in late)
    assert manifest.read_bytes() == published
    assert work.job().state == "succeeded" and work.job().losses == 1


# -- whole experiments -------------------------------------------------------------------------


class OnRay(Place):
    """A tiny experiment whose jobs run on the cluster."""

    def __init__(self, folder: Path, address: str) -> None:
        super().__init__(folder)
        self.address = address
        self.running: list[subprocess.Popen[str]] = []

    def words(self, *more: str) -> tuple[str, ...]:
        ray = ("--executor", "ray", "--ray-address", self.address, "--slots", "2")
        return ("run", str(self.specs), "--root", str(self.folder), *ray, *more)

    def begun(self) -> subprocess.Popen[str]:
        """Start a run, which ends with the test at the latest."""
        self.running.append(self.start(*self.words()))
        return self.running[-1]

    def at_work(self) -> list[psutil.Process]:
        """Return the workers, if a job is under way."""
        running = any(job["state"] == "running" for job in self.jobs())
        return workers_in(self.state) if running else []


@pytest.fixture
def on_ray(ray_nodes: Nodes, tmp_path: Path) -> Iterator[OnRay]:
    place = OnRay(tmp_path, ray_nodes.address)
    place.write()
    yield place
    for process in place.running:
        process.kill()


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = Place(tmp_path_factory.mktemp("disk"))
    place.write()
    place.settle()
    return place.payloads()


def test_the_artifacts_are_those_of_processes_of_this_machine_and_nothing_is_left(on_ray, on_disk):
    code, output = on_ray.call(*on_ray.words())
    assert code == 0, output + on_ray.worker_log()
    assert on_ray.payloads() == on_disk
    assert workers_in(on_ray.state) == []
    code, output = on_ray.call("logs", "experiment", "tiny")
    assert "job succeeded" in output


def test_it_settles_by_itself_while_workers_actors_a_raylet_and_a_node_are_killed(
    on_ray, on_disk, ray_nodes, record_property
):
    running = on_ray.begun()
    kills = 0
    for way in WAYS:
        if way is stop_raylet:
            continue  # what it leaves ends only when the raylet goes on
        found = eventually(lambda: on_ray.at_work() or running.poll() is not None)
        if running.poll() is not None:
            break
        worker = found[0]
        node = node_of(worker, ray_nodes)
        way(ray_nodes, node, worker)
        kills += 1
        if way in (kill_raylet, kill_node):
            ray_nodes.remove(node)
            ray_nodes.add()
    output, _ = running.communicate(timeout=900)
    record_property("kills", kills)
    assert running.returncode == 0, output + on_ray.worker_log()
    assert on_ray.payloads() == on_disk
    assert kills >= 2 and len(on_ray.rows()["job_starts"]) > len(on_ray.jobs())


def node_of(worker: psutil.Process, nodes: Nodes) -> Any:
    """Return the node whose raylet a worker's actor descends from."""
    ancestors = {process.pid for process in worker.parents()}
    return next(node for node in nodes.nodes if nodes.raylet(node).pid in ancestors)


def test_a_controller_that_comes_after_a_killed_one_goes_on_with_its_workers(on_ray, on_disk):
    running = on_ray.begun()
    eventually(lambda: "job starts" in on_ray.worker_log())
    assert workers_in(on_ray.state)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    code, output = on_ray.call(*on_ray.words())
    assert code == 0, output + on_ray.worker_log()
    assert on_ray.payloads() == on_disk
    assert [job["losses"] for job in on_ray.jobs()] == [0] * len(on_ray.jobs())
    assert len(on_ray.rows()["job_starts"]) == len(on_ray.jobs())


def test_slots_that_no_node_has_are_refused_in_a_condition_and_nothing_starts(on_ray):
    code, output = on_ray.call(*on_ray.words("--device", "cuda", "--timeout", "60s"))
    assert code == 124, output
    code, output = on_ray.call("get", "captures", "-o", "json")
    (capture,) = json.loads(output)["items"]
    ready = next(one for one in capture["status"]["conditions"] if one["type"] == "Ready")
    assert ready["reason"] == "Unplaceable" and "GPU 1" in ready["message"], ready
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
