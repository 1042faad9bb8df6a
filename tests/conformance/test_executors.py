"""Every executor passes the suite of its port: processes, and those that simulations use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from loopscope.controller.jobs import local_processes
from loopscope.controller.jobs.local_processes import LocalProcesses
from loopscope.state.workers import log_paths
from tests.conformance.executor import ExecutorConformance
from tests.integration.real import eventually
from tests.simulated import SimulatedWorkers, VirtualClock
from tests.simulation.fleet import Fleet, Installed

OBEDIENT = """
import json, os, pathlib, sys, threading, time
def answer(word, number): os.write(1, json.dumps({word: number}).encode() + b"\\n")
def work():
    for line in sys.stdin:
        job = json.loads(line)["job"]
        answer("began", job)
        print("at work on", job, file=sys.stderr, flush=True)
        while not (pathlib.Path(sys.argv[1]) / str(job)).exists(): time.sleep(0.01)
        answer("ended", job)
    os._exit(0)
threading.Thread(target=work).start()
"""


@pytest.mark.integration
class TestLocalProcesses(ExecutorConformance):
    @pytest.fixture(autouse=True)
    def _script(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder = tmp_path
        command = (sys.executable, "-S", "-c", OBEDIENT, str(tmp_path))
        monkeypatch.setattr(local_processes, "WORKER_COMMAND", command)
        monkeypatch.setattr(local_processes, "STOP_GRACE_SECONDS", -2.0)

    def made(self, slots: int) -> LocalProcesses:
        return LocalProcesses(self.state.path, self.state.logs, ("cpu",) * slots, lambda: None)

    def end(self, worker: str, job: int) -> None:
        (self.folder / str(job)).touch()

    def die(self, worker: str) -> None:
        process = psutil.Process(int(worker.split("@")[0]))
        process.kill()

    def comes_true(self, what: Any) -> None:
        eventually(what)

    def test_what_a_worker_writes_stands_in_a_log_that_anybody_finds(self):
        _, job = self.started()
        said = f"at work on {job}"
        self.comes_true(lambda: any(said in p.read_text() for p in log_paths(self.state.logs)))

    def test_the_workers_of_another_executor_can_be_looked_up_and_killed(self):
        worker, _ = self.started()
        later = self.made(1)
        assert later.is_alive(worker)
        later.kill(worker)
        self.comes_true(lambda: not later.is_alive(worker))


class TestInLine(ExecutorConformance):
    """Jobs run in the process of the test, when it says so."""

    def made(self, slots: int) -> SimulatedWorkers:
        failures = {"capture": ("Odd", False)}
        return SimulatedWorkers(self.state, VirtualClock(), slots, failures=failures)

    def end(self, worker: str, job: int) -> None:
        self.executor.complete()

    def die(self, worker: str) -> None:
        self.executor.dead.add(worker)

    def comes_true(self, what: Any) -> None:
        assert what()


class TestFleet(ExecutorConformance):
    """Workers of the simulation, which outlive their controller."""

    code = Installed().of_stage("capture")

    def made(self, slots: int) -> Fleet:
        self.everybody: dict[str, Any] = {}
        return Fleet(self.state, VirtualClock(), self.everybody, {}, Installed(), set(), slots)

    def end(self, worker: str, job: int) -> None:
        hand = self.everybody[worker]
        hand.worker.failure = ("Odd", False)
        while hand.worker is not None:
            self.executor.go_on(hand)

    def die(self, worker: str) -> None:
        self.everybody[worker].die()

    def comes_true(self, what: Any) -> None:
        assert what()
