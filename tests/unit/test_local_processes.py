"""How workers end, in words, and how long a slot waits after a worker that could not start."""

import io
import signal
import subprocess
from types import SimpleNamespace

import pytest

from loopscope.controller.jobs import local_processes
from loopscope.controller.jobs.local_processes import (
    SPAWN_PAUSE_SECONDS_MAX,
    LocalProcesses,
)
from loopscope.controller.jobs.scheduling import Place
from loopscope.controller.jobs.worker_log import obituary
from loopscope.state.orders import EXIT_OUT_OF_TIME


def ended(status, last_line="", has_begun=False):
    return SimpleNamespace(
        process=SimpleNamespace(returncode=status),
        log=SimpleNamespace(last_line=lambda: last_line),
        has_begun=has_begun,
    )


@pytest.mark.parametrize(
    ("worker", "words"),
    [
        (ended(-signal.SIGKILL, "x"), "was killed by signal 9, probably by the system because"),
        (ended(-signal.SIGSEGV, "x"), "was ended by signal 11"),
        (ended(0), "exited with status 0"),
        (ended(3, "ValueError: no"), "exited with status 3; its last words: ValueError: no"),
    ],
)
def test_a_worker_that_ended_is_described_by_its_signal_or_its_status_and_last_words(worker, words):
    found = obituary(worker.process.returncode, worker.log)
    assert found.startswith(words) if "probably" in words else found == words


@pytest.fixture
def processes(tmp_path, monkeypatch):
    """Workers at a moment that does not pass."""
    monkeypatch.setattr(local_processes.time, "monotonic", lambda: 100.0)
    return LocalProcesses(tmp_path / "state", tmp_path / "logs", ("cpu",), lambda: None)


def test_a_slot_pauses_twice_as_long_after_each_worker_that_could_not_start(processes):
    pauses = []
    for _ in range(9):
        processes._note_crash(ended(1))
        pauses.append(processes._spawn_not_before - 100.0)
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == SPAWN_PAUSE_SECONDS_MAX
    assert processes.places() == ()


def test_a_worker_that_began_or_was_killed_is_replaced_at_once(processes):
    processes._note_crash(ended(-signal.SIGKILL))
    assert processes._spawn_not_before == 0.0
    processes._note_crash(ended(1))
    processes._note_crash(ended(1))
    processes._note_crash(ended(1, has_begun=True))
    processes._note_crash(ended(1))
    assert processes._spawn_not_before == 101.0, "the count begins anew"
    processes._spawn_not_before = 100.0
    assert [place.device for place in processes.places()] == ["cpu"]


def test_a_warm_worker_without_a_job_is_a_place_with_its_device_and_its_model(processes):
    alive = SimpleNamespace(poll=lambda: None)
    processes.slot_devices = ("cpu", "cuda:0", "cuda:1")
    for slot, job_id in ((0, None), (1, 5)):
        processes._workers[f"w{slot}"] = SimpleNamespace(
            name=f"w{slot}", slot=slot, process=alive, job_id=job_id, device=f"d{slot}", model="m"
        )
    assert processes.places() == (Place("d0", "w0", "m"), Place("cuda:1"))


def test_a_worker_that_died_gives_its_job_back_with_the_words_of_its_end(processes):
    dead = SimpleNamespace(poll=lambda: 3, returncode=3)
    log = SimpleNamespace(last_line=lambda: "no such device")
    for name, job_id in (("w0", 5), ("w1", None)):
        processes._workers[name] = SimpleNamespace(
            name=name, slot=0, process=dead, job_id=job_id, log=log, has_begun=True
        )
    alive = SimpleNamespace(poll=lambda: None)
    processes._workers["w2"] = SimpleNamespace(slot=1, process=alive, job_id=6)
    assert processes.finished() == [5]
    assert processes.finished() == []
    assert processes.how_it_ended("w0") == "exited with status 3; its last words: no such device"
    assert processes.how_it_ended("w1") == ""
    assert processes.how_it_ended("w2") == "gave no sign of life and is ended"
    assert not processes.is_alive("1@0") and processes.is_alive("w2")


def test_once_a_worker_was_short_of_time_there_is_no_place_for_another_job(processes):
    processes._workers["w0"] = SimpleNamespace(
        name="w0", slot=0, job_id=5, has_begun=True, log=SimpleNamespace(last_line=lambda: ""),
        process=SimpleNamespace(poll=lambda: EXIT_OUT_OF_TIME, returncode=EXIT_OUT_OF_TIME),
    )  # fmt: skip
    processes.slot_devices = ("cpu", "cpu")
    assert processes.time_is_up() and processes.places() == ()
    assert processes.finished() == [5], "the controller looks at the job that it gave back"


def test_only_the_answers_to_its_own_job_are_heard_of_a_worker(processes):
    woken, printed = [], [
        b"a library prints\n", b'{"began": 4}\n', b'{"ended": 4}\n', b"[" * 9999 + b"\n",
        b'{"began": 5}\n', b'{"ended": 5}\n', b'{"began": 5}\n', b'{"ended": 5}\n',
    ]  # fmt: skip
    processes.wake = lambda: woken.append(worker.job_id)
    worker = SimpleNamespace(
        process=SimpleNamespace(stdout=io.BytesIO(b"".join(printed[:4]))), job_id=5, has_begun=False
    )
    processes._listen(worker)
    assert (worker.has_begun, worker.job_id, woken) == (False, 5, [5])
    worker.process.stdout = io.BytesIO(b"".join(printed[4:]))
    processes._listen(worker)
    assert (worker.has_begun, worker.job_id) == (True, None)
    assert processes.finished() == [5]
    assert woken == [5, None, None], "at the end of a job, and of the worker"


class Process:
    """A worker's process: it ends when its pipe closes, or not before it is killed."""

    def __init__(self, stubborn):
        self.stubborn = stubborn
        self.stdin = SimpleNamespace(close=lambda: self.did.append("closed"))
        self.did = []

    def wait(self, seconds):
        self.did.append("waited")
        if self.stubborn and "killed" not in self.did:
            raise subprocess.TimeoutExpired("worker", seconds)

    def kill(self):
        self.did.append("killed")


def test_workers_are_asked_to_stop_together_and_those_that_do_not_are_killed(processes):
    quick, slow = Process(stubborn=False), Process(stubborn=True)
    for name, process in (("slow", slow), ("quick", quick)):
        processes._workers[name] = SimpleNamespace(process=process, slot=0)
    assert processes.stop() == ["slow", "quick"]
    assert quick.did == ["closed", "waited"]
    assert slow.did == ["closed", "waited", "killed", "waited"]
    assert processes._workers == {}
