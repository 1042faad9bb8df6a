"""SIGSTOP, then SIGCONT: who slept past the lease comes back to a world that went on without it."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from loopscope.state.files import file_sha256
from tests.chaos.bench import Bench, write
from tests.chaos.conftest import Workshop
from tests.chaos.processes import Process
from tests.chaos.verdict import payloads

pytestmark = pytest.mark.integration

SQLITE_PATIENCE_SECONDS = 600
"""Each write of the controller waits a minute for a lock that somebody holds in his sleep."""


@pytest.mark.long
@pytest.mark.parametrize("place", ["shard-sealed", "artifact-sealed"])
def test_a_worker_whose_job_was_cancelled_while_it_slept_publishes_nothing(
    workshop: Workshop, bench: Bench, place: str
) -> None:
    controller = bench.start(*bench.controller_words(watch=True), failpoint=f"{place}:stop@1")
    sleeper = _asleep_at(bench, place)
    for spec in bench.place.specs.glob("*.yaml"):
        spec.unlink()
    write(bench.place, "other prompts")
    (bench.place.specs / "second.yaml").unlink()
    bench.until(lambda: ("cancelled",) in bench.rows("select state from jobs"))
    controller.kill()
    before = _everything(bench)
    _continue_to_its_end(bench, sleeper)
    assert _everything(bench) == before


@pytest.mark.parametrize(
    "place", [pytest.param("shard-sealed", marks=pytest.mark.long), "artifact-sealed"]
)
def test_a_worker_that_slept_past_its_lease_changes_nothing(
    workshop: Workshop, bench: Bench, place: str
) -> None:
    controller = bench.start(*bench.controller_words(watch=True), failpoint=f"{place}:stop@1")
    sleeper = _asleep_at(bench, place)
    ((token,),) = bench.rows("select token from jobs where state = 'running'")
    controller.kill()
    run = bench.start(*bench.run_words())  # another controller, whose own workers do not sleep
    bench.until(lambda: bench.rows(f"select id from jobs where token > {token}"))
    _continue_to_its_end(bench, sleeper)
    assert "artifact-committed" not in sleeper.reached
    assert run.wait() == 0
    assert payloads(bench.state).items() <= workshop.expected.items()
    assert _finished_once(bench)


@pytest.mark.long
@pytest.mark.parametrize("place", ["shard-sealed", "artifact-renamed"])
def test_a_worker_that_sleeps_under_its_controller_is_ended_and_its_job_done_by_another(
    workshop: Workshop, bench: Bench, place: str
) -> None:
    """At artifact-renamed it sleeps with SQLite's write lock in its hand."""
    with bench.state.with_name("controller.log").open("w+") as log:
        words = bench.controller_words(watch=True)
        controller = bench.start(*words, failpoint=f"{place}:stop@1", stdout=log, stderr=log)
        sleeper = _asleep_at(bench, place)
        bench.until(lambda: not sleeper.alive, SQLITE_PATIENCE_SECONDS)
        controller.terminate()
        bench.until(lambda: controller.poll() is not None or _wake_all(bench))
        log.seek(0)
        assert "Traceback" not in log.read()
    assert sleeper.returncode == -signal.SIGKILL
    write(bench.place, "as it was")
    bench.settle()
    assert payloads(bench.state).items() <= workshop.expected.items()


@pytest.mark.long
def test_a_run_that_stands_by_takes_over_when_the_stopped_controller_dies(
    workshop: Workshop, bench: Bench
) -> None:
    controller = bench.start(*bench.controller_words(watch=True))
    bench.worker_at_work()
    _stop_without_the_lock(bench, controller.pid)
    run = bench.start(*bench.run_words())
    bench.until(lambda: _has_applied(bench))
    assert run.poll() is None
    controller.kill()
    assert run.wait() == 0
    assert bench.settled()
    assert payloads(bench.state).items() <= workshop.expected.items()


def test_a_controller_that_comes_back_from_a_long_sleep_goes_on(
    workshop: Workshop, bench: Bench
) -> None:
    controller = bench.start(*bench.controller_words(watch=True))
    bench.worker_at_work()
    _stop_without_the_lock(bench, controller.pid)
    run = bench.start(*bench.run_words())
    bench.until(lambda: "running" not in str(bench.rows("select state from jobs")))
    os.kill(controller.pid, signal.SIGCONT)
    assert run.wait() == 0
    controller.terminate()
    assert controller.wait() == 0
    assert payloads(bench.state).items() <= workshop.expected.items()
    assert _finished_once(bench)


def _stop_without_the_lock(bench: Bench, pid: int) -> None:
    """Stop a process at a moment at which it does not hold the write lock: no command could act."""

    def stopped() -> bool:
        os.kill(pid, signal.SIGSTOP)
        with closing(sqlite3.connect(bench.state / "state.db", timeout=0.5)) as connection:
            try:
                connection.execute("begin immediate").connection.rollback()
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                return False
        return True

    bench.until(stopped)


def _asleep_at(bench: Bench, name: str) -> Process:
    """Wait for the worker that stopped itself at a failpoint."""

    def found() -> Process | None:
        workers = (p for p in bench.processes.alive("worker") if p.reached)
        return next((p for p in workers if p.reached[-1] == name), None)

    sleeper: Process = bench.until(found)
    return sleeper


def _continue_to_its_end(bench: Bench, sleeper: Process) -> None:
    """Continue the worker, if nobody ended it meanwhile, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(sleeper.pid, signal.SIGCONT)
    bench.until(lambda: not sleeper.alive)


def _wake_all(bench: Bench) -> bool:
    """Continue workers that stopped at the same failpoint again."""
    for worker in bench.processes.alive("worker"):
        os.kill(worker.pid, signal.SIGCONT)
    return False


def _finished_once(bench: Bench) -> bool:
    finished = bench.rows("select digest from jobs where state = 'succeeded'")
    return len(set(finished)) == len(finished) > 0


def _has_applied(bench: Bench) -> bool:
    return any("transaction-committed" in p.reached for p in bench.processes.alive("run"))


def _everything(bench: Bench) -> tuple[dict[str, str], list[list[tuple[object, ...]]]]:
    """Return the hash of each artifact file and every row that anybody decides from."""
    artifacts = bench.state / "artifacts"
    published = (p for p in artifacts.glob("[a-z]*/**/*") if p.is_file())
    hashes = {str(path.relative_to(artifacts)): file_sha256(Path(path)) for path in published}
    tables = ("objects", "jobs", "artifacts", "events", "changes")
    return hashes, [bench.rows(f"select * from {table}") for table in tables]
