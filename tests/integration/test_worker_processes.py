"""The executor with workers that misbehave: small scripts in their place, as real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from loopscope.controller.jobs import local_processes
from loopscope.controller.jobs.local_processes import LocalProcesses
from loopscope.state.log_files import LOG_BYTES_MAX
from loopscope.state.orders import Order
from loopscope.state.processes import process_name
from tests.integration.real import eventually

pytestmark = pytest.mark.integration

HEAR_ONE_JOB = """
import json, os, sys, time
job = json.loads(sys.stdin.readline())["job"]
def answer(word, number=job): os.write(1, json.dumps({word: number}).encode() + b"\\n")
"""


class Crew:
    """An executor whose workers run a script of the test's choice."""

    def __init__(self, folder: Path, script: str, slots: int = 1) -> None:
        self.script = folder / "worker.py"
        self.write(script)
        self.logs = folder / "logs"
        self.processes = LocalProcesses(folder / "state", self.logs, ("cpu",) * slots, lambda: None)

    def write(self, script: str) -> None:
        self.script.write_text(script)

    def start(self, job: int = 7) -> str:
        worker = eventually(self.processes.free_worker)
        self.processes.start(worker, Order(job, 1))
        return str(worker)

    def ended(self) -> list[int]:
        return list(eventually(self.processes.finished))


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[Crew] = []

    def make(script: str, slots: int = 1) -> Crew:
        made.append(Crew(tmp_path, script, slots))
        command = (sys.executable, "-S", str(made[-1].script))
        monkeypatch.setattr(local_processes, "WORKER_COMMAND", command)
        return made[-1]

    yield make
    monkeypatch.setattr(local_processes, "STOP_GRACE_SECONDS", -2.0)
    for one in made:
        one.processes.stop()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stand in for the executor's clock; return how to move it."""
    now = [1000.0]
    monkeypatch.setattr(local_processes, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


NOISE = (
    HEAR_ONE_JOB
    + """
answer("began")
os.write(1, b"Loading...\\n\\xff\\xfe\\x00 no text\\n[1, 2]\\n5\\nnull\\n{}\\n")
os.write(1, b"[" * 5000 + b"\\n")
os.write(1, b'{"ended": 8}\\n{"ended": [7]}\\n{"ended": "7"}\\n')
for _ in range(100): sys.stdout.buffer.write(b"x" * 1_000_000)
sys.stdout.buffer.write(b"\\n"); sys.stdout.flush()
answer("ended")
time.sleep(600)
"""
)


def test_whatever_a_worker_prints_only_its_own_answer_counts(crew):
    one = crew(NOISE)
    worker = one.start()
    assert one.ended() == [7]
    assert one.processes.is_alive(worker)
    assert one.processes.free_worker() == worker


FLOOD = (
    HEAR_ONE_JOB
    + """
answer("began")
for _ in range(100): os.write(2, b"x" * 1_000_000)
for number in range(100_000): os.write(2, b"line %d\\n" % number)
answer("ended")
time.sleep(600)
"""
)


def test_a_flood_of_log_is_kept_within_its_limit_and_delays_nobody(crew):
    one = crew(FLOOD)
    one.start()
    assert one.ended() == [7]
    last = one.logs / "worker-0.log"
    eventually(lambda: last.read_bytes().endswith(b"line 99999\n"))
    sizes = {path.name: path.stat().st_size for path in one.logs.iterdir()}
    assert set(sizes) == {"worker-0.log", "worker-0.log.1"}
    assert all(size <= LOG_BYTES_MAX for size in sizes.values()), sizes


def test_a_log_that_cannot_be_written_stops_no_worker(crew):
    one = crew(FLOOD)
    one.logs.mkdir()
    (one.logs / "worker-0.log").mkdir()
    one.start()
    assert one.ended() == [7]


BROKEN = """
import sys
print("Traceback ...", file=sys.stderr)
print("ImportError: libtorch_cpu.so: cannot open shared object file", file=sys.stderr)
sys.exit(1)
"""


def test_a_worker_that_cannot_start_is_started_at_growing_intervals_and_says_why(crew, clock):
    one = crew(BROKEN)
    for pause in (1, 2, 4, 8, 16, 30, 30):
        worker = one.processes.free_worker()
        assert worker is not None
        one.processes.start(worker, Order(7, 1))
        one.processes._workers[worker].process.wait()
        assert one.processes.finished() == [7]
        how = one.processes.how_it_ended(worker)
        assert how.startswith("exited with status 1") and "libtorch_cpu.so" in how
        clock(pause - 0.1)
        assert one.processes.free_worker() is None
        clock(0.2)


def test_a_worker_that_began_is_replaced_at_once_and_forgives_what_was_before(crew, clock):
    one = crew(BROKEN)
    for _ in range(3):
        worker = one.processes.free_worker()
        one.processes._workers[worker].process.wait()
        one.processes.finished()
        clock(60)
    one.write(HEAR_ONE_JOB + "answer('began'); sys.stdin.readline(); os._exit(3)")
    worker = one.processes.free_worker()
    one.processes.start(worker, Order(7, 1))
    process = one.processes._workers[worker]
    eventually(lambda: process.has_begun)
    one.processes.start(worker, Order(7, 1))
    process.process.wait()
    assert one.processes.finished() == [7]
    assert one.processes.how_it_ended(worker) == "exited with status 3"
    assert one.processes.free_worker() is not None, "no pause"


WAIT = (
    HEAR_ONE_JOB
    + """
answer("began")
print("at work", file=sys.stderr, flush=True)
time.sleep(600)
"""
)


def test_a_worker_that_was_killed_is_told_apart(crew):
    one = crew(WAIT)
    worker = one.start()
    one.processes._workers[worker].process.kill()
    assert one.ended() == [7]
    assert "killed by signal 9, probably" in one.processes.how_it_ended(worker)
    assert one.processes.how_it_ended("1@2.00") == ""


def test_a_stopped_worker_can_be_killed(crew):
    one = crew(WAIT)
    worker = one.start()
    one.processes._workers[worker].process.send_signal(signal.SIGSTOP)
    assert one.processes.how_it_ended(worker) == "gave no sign of life and is ended"
    one.processes.kill(worker)
    assert not one.processes.is_alive(worker)
    assert one.ended() == [7]


def test_a_stopped_worker_of_an_earlier_controller_is_killed_with_its_lease(crew):
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as left:
        worker = process_name(left.pid)
        left.send_signal(signal.SIGSTOP)
        one = crew(WAIT)
        assert one.processes.is_alive(worker)
        one.processes.kill(f"{left.pid}@1.00")
        assert one.processes.is_alive(worker), "another process once had that number"
        one.processes.kill(worker)
        eventually(lambda: not one.processes.is_alive(worker))


def test_each_slot_keeps_its_own_log_when_the_first_worker_is_replaced(crew):
    one = crew(WAIT, slots=2)
    first, _second = one.start(1), one.start(2)
    eventually(lambda: len(list(one.logs.glob("*.log"))) == 2)
    one.processes._workers[first].process.kill()
    assert one.ended() == [1]
    one.start(3)
    logs = [one.logs / "worker-0.log", one.logs / "worker-1.log"]
    eventually(lambda: [log.read_text().count("at work") for log in logs] == [2, 1])
