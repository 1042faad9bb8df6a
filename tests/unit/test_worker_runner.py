"""What a worker makes of the ways in which a stage can end, and of memory above all."""

import errno
import json
import shutil
import time
import types
from dataclasses import replace

import pytest
import torch
from structlog.testing import capture_logs

from loopscope.specs.actions import CODE_REVISIONS, Action
from loopscope.specs.keys import Key
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import jobs, preemptions
from loopscope.state.failures import MadeRoom, TerminalFailure, TransientFailure
from loopscope.state.retry_policy import RetryPolicy
from loopscope.worker import runner as runner_module
from loopscope.worker.lease import Lease
from loopscope.worker.manifest import manifest_of
from loopscope.worker.memory import ran_out_of_memory
from loopscope.worker.runner import Runner, batch_divisor
from loopscope.worker.stop import StopRequest
from tests.hand_built import job
from tests.simulated import new_state

ACTION = Action("capture", {}, {"prompts": []})
DIGEST = ACTION.digest
CPU_WORDS = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 80000000000 bytes. Error code 12 (Cannot allocate memory)"
)


class Shop:
    """One job on the queue and a runner whose stage does what the test says."""

    def __init__(self, folder, monkeypatch):
        self.state = new_state(folder / "state")
        self.runner = Runner(self.state, "cpu")
        self.stop = StopRequest(lambda: None)
        self.divisors, self.stage = [], lambda payload, context, out: {}
        module = types.SimpleNamespace(run=self._run)
        monkeypatch.setattr(runner_module.importlib, "import_module", lambda name: module)
        with self.state.database.write() as connection:
            key = Key("Capture", "default", "cap")
            self.id, _ = jobs.enqueue(connection, ACTION, key, 1, now=1.0)

    def _run(self, payload, context, out):
        self.divisors.append(context.batch_divisor)
        (out / "payload").write_text("rows")
        return self.stage(payload, context, out)

    def ends_with(self, error):
        def stage(*_):
            raise error

        self.stage = stage
        return self.run()

    def run(self, lease_seconds=30.0):
        with self.state.database.write() as connection:
            job = jobs.claim(connection, self.id, "w", lease_seconds, now=2.0)
        self.lease = Lease(self.state.database, job.id, job.token, lease_seconds, self.stop)
        if lease_seconds < 30.0:
            with self.lease:
                self.runner.run(job.id, job.token, self.lease)
        else:  # no thread: clocks are replaced
            self.runner.run(job.id, job.token, self.lease)
        with self.state.database.read() as connection:
            return jobs.get(connection, self.id)

    def until_heard(self):
        """Wait until the heartbeat told that another job asks for room."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self.lease.make_room()
            except MadeRoom:
                return
            assert time.monotonic() < deadline, "it was never told"


@pytest.fixture
def shop(tmp_path, monkeypatch):
    return Shop(tmp_path, monkeypatch)


def caused_by(error, cause):
    error.__cause__ = cause
    return error


MEMORY_ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError(CPU_WORDS),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    caused_by(TerminalFailure("ModelNotLoadable", "cannot load"), MemoryError()),
]


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=lambda e: type(e).__name__)
def test_memory_that_ran_out_is_known_by_any_name(error):
    assert ran_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError(errno.ENOSPC, "No space left on device"),
        TerminalFailure("PromptTooLong", "out of memory, says the prompt"),
    ],
)
def test_other_trouble_is_not_taken_for_it(error):
    assert not ran_out_of_memory(error)


def test_a_job_that_ran_out_of_memory_is_tried_once_more_with_half_the_batch(shop):
    job = shop.ends_with(RuntimeError(CPU_WORDS))
    assert (job.state, job.reason, job.attempts) == ("pending", "OutOfMemory", 1)
    assert "you tried to allocate 80000000000 bytes" in job.message
    assert "half the batch" in job.message
    assert shop.runner.memory_ran_out, "this process is not to be used again"
    shop.stage = lambda payload, context, out: {}
    job = shop.run()
    assert (job.state, job.reason, job.message) == ("succeeded", None, None)
    assert shop.divisors == [1, 2]
    with shop.state.database.read() as connection:
        assert artifact_index.get(connection, DIGEST) is not None
    folder = shop.state.artifacts.folder("capture", DIGEST)
    assert json.loads((folder / "manifest.json").read_text())["batchDivisor"] == 2


def test_half_a_batch_that_does_not_fit_either_is_the_end_with_advice(shop):
    shop.ends_with(MemoryError())
    job = shop.ends_with(MemoryError())
    assert (job.state, job.reason, job.attempts) == ("failed", "OutOfMemory", 2)
    assert "loopscope retry" in job.message and "fewer or shorter prompts" in job.message
    with shop.state.database.write() as connection:
        shop.id = jobs.retry(connection, job.id, now=3.0)
    shop.stage = lambda payload, context, out: {}
    assert shop.run().state == "succeeded"
    assert shop.divisors == [1, 2, 1], "a retry by hand starts afresh"


def test_a_stop_or_a_loss_between_the_two_tries_keeps_the_half_batch(shop):
    job = shop.ends_with(MemoryError())
    with shop.state.database.write() as connection:
        job = jobs.claim(connection, job.id, "w", 30.0, now=3.0)
        jobs.release(connection, job.id, job.token)
        job = jobs.claim(connection, job.id, "w", 30.0, now=4.0)
        jobs.lose(connection, job, "was killed by signal 9", now=5.0, policy=RetryPolicy())
        assert batch_divisor(jobs.get(connection, job.id)) == 2


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (TransientFailure("HubUnreachable", "no network"), "pending", "HubUnreachable"),
        (TerminalFailure("PromptTooLong", "p1"), "failed", "PromptTooLong"),
        (OSError(errno.ENOSPC, "no space"), "pending", "DiskFull"),
        (OSError(errno.EIO, "bad disk"), "pending", "InputOutputError"),
        (KeyError("x"), "failed", "UnexpectedError"),
    ],
)
def test_each_failure_has_its_name_and_publishes_nothing(shop, error, state, reason):
    job = shop.ends_with(error)
    assert (job.state, job.reason) == (state, reason)
    assert not shop.state.artifacts.folder("capture", DIGEST).exists()
    assert not shop.runner.memory_ran_out


@pytest.mark.parametrize("taken", [False, True])
def test_what_fails_in_a_job_that_was_taken_away_is_not_called_unexpected(shop, taken):
    def stage(_payload, _context, out):
        if taken:
            with shop.state.database.write() as connection:
                jobs.cancel(connection, shop.id, "Unwanted", "an edit", now=3.0)
        shutil.rmtree(out)
        raise RuntimeError("I/O error: No such file or directory")

    shop.stage = stage
    with capture_logs() as lines:
        job = shop.run()
    assert job.state == ("cancelled" if taken else "failed")
    assert ("unexpected" in [line["event"] for line in lines]) is not taken


def test_a_job_whose_next_shard_would_end_too_late_is_given_back_with_its_shards(shop, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shop.stop.ends_at = 250.0

    def stage(payload, context, out):
        for name in "abc":
            context.progress("Capturing", 0, 3, "prompts")
            if context.shards.sealed(name) is None:
                context.progress("Capturing", 0, 3, "prompts")
                now[0] += 60.0
                context.shards.seal(name, lambda path: path.write_bytes(b"rows"))
        return {}

    shop.stage = stage
    job = shop.run()
    assert (job.state, job.attempts, job.losses) == ("pending", 0, 0)
    assert shop.stop.out_of_time
    assert len(shop.state.artifacts.shards(DIGEST).names()) == 2
    shop.stop = StopRequest(lambda: None)
    assert shop.run().state == "succeeded" and now[0] == 280.0, "only the third was made again"


def test_a_job_that_is_asked_to_makes_room_between_two_shards_once_a_try(shop):
    made = []

    def stage(payload, context, out):
        with shop.state.database.write() as connection:
            urgent = Action("steering", {}, {})
            by, _ = jobs.enqueue(connection, urgent, Key("Steering", "default", "now"), 1, now=1.0)
            running = jobs.head(connection, shop.id)
            preemptions.ask(
                connection, shop.id, running.token, by, ("urgent 10", "low -6"), now=1.0
            )
        for name in "abc":
            if context.shards.sealed(name) is None:
                made.append(name)
                shop.until_heard()
                context.shards.seal(name, lambda path: path.write_bytes(b"rows"))
        return {}

    shop.stage = stage
    for number in (1, 2):
        job = shop.run(lease_seconds=0.06)
        assert (job.state, job.reason, job.attempts) == ("pending", "Preempted", 0)
        assert len(shop.state.artifacts.shards(DIGEST).names()) == number
    assert shop.run(lease_seconds=0.06).state == "succeeded", "behind the last it just ends"
    assert made == ["a", "b", "c"]


def test_the_manifest_of_an_undisturbed_run_says_so(shop):
    assert shop.run().state == "succeeded"
    manifest = shop.state.artifacts.manifest("capture", DIGEST)
    assert manifest["processor"] == torch.backends.cpu.get_cpu_capability()
    assert (manifest["batchDivisor"], manifest["codeRevision"]) == (1, CODE_REVISIONS["capture"])
    named = {
        "torch", "transformers", "transformer-lens", "sae-lens", "numpy", "scipy", "loopscope",
    }  # fmt: skip
    assert manifest["libraries"].keys() == named and all(manifest["libraries"].values())


def test_a_manifest_counts_what_is_as_long_as_the_prompts():
    payload = {
        "calibrationText": ["a", "b"], "splits": ["test"] * 3, "groups": [0, 0, 2], "hook": "h",
        "openings": ["a"], "captured": {"prompts": ["a", "b"], "hook": "h"},
    }  # fmt: skip
    assert manifest_of(replace(job("running"), payload=payload), {}, "cpu", 1.0, 2.0)["inputs"] == {
        "calibrationText": "2 texts", "splits": "3 prompts", "groups": "3 prompts", "hook": "h",
        "openings": "1 texts", "captured": {"prompts": "2 texts", "hook": "h"},
    }  # fmt: skip


def test_a_device_that_is_not_there_fails_the_job_before_anything_is_computed(shop, monkeypatch):
    def missing(device):
        raise TerminalFailure("DeviceNotAvailable", f"there is no {device}")

    monkeypatch.setattr(runner_module, "check_device", missing)
    job = shop.ends_with(AssertionError("it was computed"))
    assert (job.state, job.reason) == ("failed", "DeviceNotAvailable")
