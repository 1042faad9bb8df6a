"""Real workers that stop, hang, run out of memory or are left behind by their controller."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state.db import jobs, preemptions
from tests.integration.real import eventually
from tests.integration.real_worker import RealWorker, is_gone
from tests.tiny_models import folder_reference

pytestmark = pytest.mark.integration

Start = Callable[..., RealWorker]


@pytest.fixture
def new_worker(tmp_path: Path, rope_model_folder: Path) -> Iterator[Start]:
    """Make a worker with its own state folder; it is ended after the test."""
    made: list[RealWorker] = []

    def make(name: str = "one", **options: Any) -> RealWorker:
        (tmp_path / name).mkdir()
        made.append(RealWorker(tmp_path / name, folder_reference(rope_model_folder), **options))
        return made[-1]

    yield make
    for worker in made:
        worker.end()


# The worker's own code runs up to the forward pass, which then never comes back.
IN_CAPTURE = """
import os, sys, time
import torch
from loopscope.worker.stages.capture import forward_passes
def instead(*_):
    os.write(2, b"at work\\n")
    {computation}
forward_passes.residuals_at_hooks = instead
"""
MATRICES = IN_CAPTURE.format(computation="a = torch.ones(600, 600)\n    while True: a @ a")
HOLDS_THE_INTERPRETER = IN_CAPTURE.format(computation="sum(range(10**15))")
LOADS_FOR_EVER = """
import os, time
import loopscope.worker.models
def instead(*_):
    os.write(2, b"at work\\n")
    time.sleep(10**6)
loopscope.worker.models.load_tokenizer = instead
"""
SLEEPS = IN_CAPTURE.format(computation="time.sleep(10**6)")


def importing_torch(worker: RealWorker) -> None:
    maps = Path(f"/proc/{worker.process.pid}/maps")
    eventually(lambda: "libtorch" in maps.read_text())


def at_work(worker: RealWorker) -> None:
    worker.until("at work")


def stopped(worker: RealWorker) -> None:
    worker.until("at work")
    worker.process.send_signal(signal.SIGSTOP)


LEFT_ALONE = {
    "just started": ("", lambda worker: None),
    "importing torch": ("", importing_torch),
    "loading a model": (LOADS_FOR_EVER, at_work),
    "in endless matrix products": (MATRICES, at_work),
    "in C code that lets no thread run": (HOLDS_THE_INTERPRETER, at_work),
    "stopped": (SLEEPS, stopped),
}


def test_no_worker_outlives_its_controller(
    new_worker: Start, record_property: Callable[[str, object], None]
) -> None:
    workers = {state: new_worker(state, prelude=LEFT_ALONE[state][0]) for state in LEFT_ALONE}
    seconds: dict[str, float] = {}
    with ThreadPoolExecutor(len(workers)) as watchers:
        for state, worker in workers.items():
            worker.start()
            LEFT_ALONE[state][1](worker)
            family = worker.family()
            worker.disappear()
            watchers.submit(note_end, seconds, state, family)
    record_property("seconds", seconds)
    assert set(seconds) == set(workers), f"still there: {set(workers) - set(seconds)}"
    for state, worker in workers.items():
        assert (worker.job().attempts, worker.job().reason) == (0, None), state


def note_end(seconds: dict[str, float], state: str, family: list[psutil.Process]) -> None:
    """Write down how long it took until a worker and its guardian were gone."""
    left_at = time.monotonic()
    eventually(lambda: all(is_gone(member) for member in family), 60)
    seconds[state] = round(time.monotonic() - left_at, 1)


# -- stops -----------------------------------------------------------------------------

SLOWLY = """
import os, time
passes = []
from loopscope.worker.stages.capture import forward_passes, stage as capture
capture.TOKENS_PER_BATCH_MAX, capture.BATCHES_PER_SHARD = 24, 2
quick = forward_passes.residuals_at_hooks
def residuals_at_hooks(*given):
    passes.append(1)
    os.write(2, b"pass %d\\n" % len(passes))
    time.sleep({seconds})
    return quick(*given)
forward_passes.residuals_at_hooks = residuals_at_hooks
"""


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, rope_model_folder: Path
) -> Iterator[RealWorker]:
    """A worker that finished the same job without any trouble."""
    folder = tmp_path_factory.mktemp("undisturbed")
    worker = RealWorker(
        folder, folder_reference(rope_model_folder), prelude=SLOWLY.format(seconds=0)
    )
    worker.start()
    worker.until_ended()
    assert worker.job().state == "succeeded", worker.log()
    yield worker
    worker.end()


def test_sigterm_in_a_shard_finishes_it_and_the_next_try_goes_on_from_there(
    new_worker: Start, undisturbed: RealWorker
) -> None:
    worker = new_worker("stopped", prelude=SLOWLY.format(seconds=1))
    process = worker.start()
    worker.until("pass 3")  # a shard takes two, so this is the first of the second shard
    process.send_signal(signal.SIGTERM)
    assert worker.until_ended() == 0, worker.log()
    job = worker.job()
    assert (job.state, job.attempts, job.losses) == ("pending", 0, 0)
    assert len(worker.shards()) == 2 and "pass 5" not in worker.log()
    worker.prelude = SLOWLY.format(seconds=0)
    worker.start()
    assert worker.until_ended() == 0, worker.log()
    assert worker.job().state == "succeeded"
    assert worker.contents() == undisturbed.contents()


def test_a_job_that_makes_room_keeps_its_shard_and_the_same_worker_goes_on_from_there(
    new_worker: Start, undisturbed: RealWorker
) -> None:
    worker = new_worker("asked", prelude=SLOWLY.format(seconds=1))
    worker.start()
    running = worker.job()
    with worker.state.database.write() as connection:
        urgent = Action("steering", {"model": "m"}, {})
        by, _ = jobs.enqueue(connection, urgent, Key("Steering", "default", "now"), 1, now=1.0)
        rights = ("urgent 10", "low -6")
        preemptions.ask(connection, running.id, running.token, by, rights, now=1.0)
    eventually(lambda: worker.job().state == "pending")
    job = worker.job()
    assert (job.reason, job.attempts, job.losses) == ("Preempted", 0, 0), worker.log()
    assert f"made room for steering job {by} of" in (job.message or "")
    assert len(worker.shards()) == 1 and "pass 3" not in worker.log(), "a shard takes two passes"
    with worker.state.database.write() as connection:
        again = jobs.claim(connection, worker.job_id, "w", 600.0, now=time.time())
    worker.send(worker.order(again))
    assert worker.until_ended() == 0, worker.log()
    assert worker.job().state == "succeeded"
    assert worker.contents() == undisturbed.contents()


def test_sigterm_reaches_a_worker_whose_main_thread_never_comes_back(new_worker: Start) -> None:
    worker = new_worker(prelude=MATRICES)
    process = worker.start()
    at_work(worker)
    process.send_signal(signal.SIGTERM)
    assert worker.until_ended() == 75


def test_a_stuck_worker_fails_its_job_and_ends_itself(new_worker: Start) -> None:
    worker = new_worker(prelude=SLEEPS)
    worker.start(progress_timeout_seconds=5)
    assert worker.until_ended() == 70
    job = worker.job()
    assert (job.state, job.reason, job.attempts) == ("pending", "NoProgress", 1)
    assert "no progress for 5 s in " in (job.message or "")


# -- memory ----------------------------------------------------------------------------

HUNGRY = """
import resource, torch
from loopscope.worker.stages.capture import forward_passes
modest = forward_passes.residuals_at_hooks
def residuals_at_hooks(model, hooks, batch):
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + 600 * 2**20
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    scratch = torch.empty(batch.tokens.shape[0] * {mebibytes_per_row} * 2**20 // 4)
    return modest(model, hooks, batch)
forward_passes.residuals_at_hooks = residuals_at_hooks
"""


def test_a_worker_out_of_memory_succeeds_with_half_the_batch(
    new_worker: Start, undisturbed: RealWorker
) -> None:
    worker = new_worker("hungry", prelude=HUNGRY.format(mebibytes_per_row=40))
    worker.start()
    assert worker.until_ended() == 0, worker.log()
    job = worker.job()
    assert (job.state, job.reason, job.attempts) == ("pending", "OutOfMemory", 1), job.message
    assert "allocate" in (job.message or "")
    worker.start()
    worker.until_ended()
    assert worker.job().state == "succeeded", worker.job().message
    manifest = worker.state.artifacts.manifest("capture", worker.digest)
    assert manifest["batchDivisor"] == 2

    found, expected = worker.residual(), undisturbed.residual()
    assert (found["prompt_index"] == expected["prompt_index"]).all()
    assert abs(found["residual"] - expected["residual"]).max() < 1e-4


def test_a_worker_that_half_a_batch_does_not_help_gives_up_with_advice(new_worker: Start) -> None:
    worker = new_worker(prelude=HUNGRY.format(mebibytes_per_row=4000))
    for state in ("pending", "failed"):
        worker.start()
        worker.until_ended()
        assert (worker.job().state, worker.job().reason) == (state, "OutOfMemory")
    assert "loopscope retry" in (worker.job().message or "")
