"""Every named failpoint kills a real process once; what is left settles as if nothing had been."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable

import pytest

from state import failpoints
from state.jobs import RetryPolicy
from tests.chaos.bench import LEASE_SECONDS, STEERING, Bench, write
from tests.chaos.conftest import Workshop
from tests.chaos.fork_server import ForkedProcess
from tests.chaos.processes import Process
from tests.chaos.verdict import corrupt_artifacts, leftovers, payloads

pytestmark = pytest.mark.integration


def _nothing(bench: Bench) -> None:
    """The first run reaches it."""


def _lose_a_worker(bench: Bench) -> None:
    os.kill(bench.worker_at_work().pid, signal.SIGKILL)


def _want_something_else(bench: Bench) -> None:
    bench.worker_at_work()
    write(bench.place, "other prompts")


def _damage_an_artifact(bench: Bench) -> None:
    published = bench.until(lambda: list((bench.state / "artifacts" / "decomposition").glob("*")))
    bench.until(bench.settled)
    shutil.rmtree(published[0])
    published[0].mkdir()


def _take_a_spec_away(bench: Bench) -> None:
    bench.until(lambda: len(bench.rows("select name from objects where kind='Experiment'")) == 2)
    (bench.place.specs / "second.yaml").unlink()


TROUBLE: dict[str, Callable[[Bench], None]] = {
    "lease-take-back": _lose_a_worker,
    "job-cancel": _want_something_else,
    "artifact-set-aside": _damage_an_artifact,
    "object-prune": _take_a_spec_away,
}
"""What must happen for a failpoint to be reached, where an ordinary run does not do."""

WHO = ("people", "child", "teacher", "garden", "train")


@pytest.mark.parametrize("name", failpoints.NAMES)
def test_a_process_dies_at_each_failpoint_and_nothing_is_lost(
    workshop: Workshop, bench: Bench, name: str
) -> None:
    lease_seconds = 1 if name == "heartbeat" else LEASE_SECONDS  # a beat within a short job
    words = bench.controller_words(watch=True, lease_seconds=lease_seconds)
    controller = bench.start(*words, failpoint=f"{name}@1")
    TROUBLE.get(name, _nothing)(bench)
    victim = bench.until(lambda: _victim(bench))
    assert victim.reached[-1] == name
    _end(controller)
    write(bench.place, "as it was")
    bench.settle()
    assert payloads(bench.state).items() <= workshop.expected.items()
    assert _wanted(bench) <= set(payloads(bench.state))
    assert bench.rows("select id from jobs where state in ('pending', 'running')") == []
    assert leftovers(bench.state, set(payloads(bench.state))) == []
    if name != "artifact-set-aside":
        assert corrupt_artifacts(bench.state) == []


def _victim(bench: Bench) -> Process | None:
    return next((process for process in bench.processes.every if process.killed_itself), None)


def _end(controller: ForkedProcess) -> None:
    controller.kill()
    controller.wait()


def _wanted(bench: Bench) -> set[str]:
    return {record.wanted_digest for record in bench.objects() if record.wanted_digest}


def test_a_job_whose_worker_dies_after_every_shard_is_not_given_up(
    workshop: Workshop, bench: Bench
) -> None:
    openings = [f"the {who} walked to {where}" for who in WHO for where in ("paris", "rome", "sea")]
    (bench.place.folder / "texts" / "many.txt").write_text("\n".join(openings) + "\n")
    steering = STEERING | {"prompts": {"file": "../texts/many.txt"}}
    bench.place.write("tiny", steering=steering)
    (bench.place.specs / "second.yaml").unlink()
    words = (*bench.run_words(), "--job-starts-per-minute", "100000")
    code, output = bench.call(*words, failpoint="shard-sealed@1")
    assert code == 0, output
    bench.processes.look()
    deaths = [process for process in bench.processes.every if process.killed_itself]
    assert len(deaths) > RetryPolicy().losses_max + 2
