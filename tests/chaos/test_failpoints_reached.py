"""Every named failpoint kills a real process once; what is left settles as if nothing had been."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable

import pytest

from loopscope.state import failpoints
from loopscope.state.retry_policy import RetryPolicy
from tests.chaos.bench import LEASE_SECONDS, STEERING, VARIANTS, Bench, write
from tests.chaos.conftest import Workshop
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
    (bench.place.specs / "second.yaml").unlink()  # it would still want the same


def _damage_an_artifact(bench: Bench) -> None:
    published = bench.until(lambda: list((bench.state / "artifacts" / "decomposition").glob("*")))
    bench.until(bench.settled)
    shutil.rmtree(published[0])
    published[0].mkdir()


def _take_a_spec_away(bench: Bench) -> None:
    bench.until(lambda: len(bench.rows("select name from objects where kind='Experiment'")) == 2)
    (bench.place.specs / "second.yaml").unlink()


def _end_the_controller_in_good_order(bench: Bench) -> None:
    bench.worker_at_work()
    (controller,) = bench.processes.alive("controller")
    os.kill(controller.pid, signal.SIGTERM)


def _ask_for_what_fails(bench: Bench) -> None:
    bench.place.write("tiny", maxTokens=2)


def _edit_on_and_on(bench: Bench) -> None:
    for variant in (*VARIANTS, *VARIANTS):
        write(bench.place, variant)
        seen = bench.until(lambda: _version(bench))
        bench.until(lambda seen=seen: _victim(bench) or _version(bench) > seen)


def _touch_an_input(bench: Bench) -> None:
    path = bench.place.folder / "model" / "model.safetensors"
    os.utime(path, (path.stat().st_mtime - 60, path.stat().st_mtime - 60))


TROUBLE: dict[str, Callable[[Bench], None]] = {
    "lease-take-back": _lose_a_worker,
    "worker-kill": _lose_a_worker,
    "job-cancel": _want_something_else,
    "artifact-set-aside": _damage_an_artifact,
    "object-prune": _take_a_spec_away,
    "job-failure": _ask_for_what_fails,
    "job-release": _end_the_controller_in_good_order,
    "changes-trim": _edit_on_and_on,
    "hash-memo-replace": _touch_an_input,
}
"""What must happen for a failpoint to be reached, where an ordinary run does not do."""


def _fail(bench: Bench) -> None:
    _ask_for_what_fails(bench)
    bench.call(*bench.run_words())


def _leave_artifacts_behind(bench: Bench) -> None:
    bench.settle()
    write(bench.place, "other prompts")
    (bench.place.specs / "second.yaml").unlink()
    bench.call(*bench.apply_words(), "--prune")
    bench.settle()


def _throw_artifacts_away(bench: Bench) -> None:
    _leave_artifacts_behind(bench)
    code, output = bench.call("gc", "--yes", "--grace", "0s")
    assert code == 0, output
    write(bench.place, "as it was")


PREPARATIONS: dict[str, Callable[[Bench], None]] = {
    "job-retry": _fail,
    "trash-put": _leave_artifacts_behind,
    "trash-empty": _throw_artifacts_away,
    "trash-take-back": _throw_artifacts_away,
}
"""What must have happened before a command reaches its failpoint, where settling is not enough."""
COMMANDS = {
    "object-delete": ("delete", "experiment", "second"),
    "report-write": ("report", "tiny"),
    "bundle-rename": ("export", "tiny", "{state}.bundle"),
    "job-retry": ("retry", "capture", "tiny"),
    "trash-put": ("gc", "--yes", "--grace", "0s"),
    "trash-empty": ("gc", "--yes", "--empty-trash"),
    "trash-take-back": ("run", "{specs}", "--root", "{root}"),
}
"""Failpoints of commands; the words may hold folders."""
NOT_HERE = {
    "events-trim": "it takes 5,000 different events",
    "conversion-spawn": "it takes a GGUF model; a unit test of the same name has one",
    "conversion-rename": "it takes a GGUF model; a unit test of the same name has one",
}
SHORT_DOSE = (
    "transaction-commit",
    "artifact-sealed",
    "artifact-committed",
    "lease-take-back",
    "object-prune",
    "trash-put",
)
"""What ``make test`` kills at, one for each hop that tests/integration/test_kills.py leaves out."""
WHO = ("people", "child", "teacher", "garden", "train")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in SHORT_DOSE else pytest.mark.long)
        for name in failpoints.NAMES
        if name not in NOT_HERE
    ],
)
def test_a_process_dies_at_each_failpoint_and_nothing_is_lost(
    workshop: Workshop, bench: Bench, name: str
) -> None:
    if name in COMMANDS:
        _command_dies_at(bench, name)
    else:
        _controller_or_worker_dies_at(bench, name)
    write(bench.place, "as it was")
    bench.settle()
    bench.settle()  # what died in the middle of something is tidied up by the next start
    found = payloads(bench.state)
    assert found.items() <= workshop.expected.items()
    assert {record.wanted_digest for record in bench.objects()} - {None} <= set(found)
    assert all(record.ready for record in bench.objects())
    assert bench.rows("select id from jobs where state in ('pending', 'running')") == []
    assert leftovers(bench.state, set(found)) == []
    if name != "artifact-set-aside":
        assert corrupt_artifacts(bench.state) == []


def _controller_or_worker_dies_at(bench: Bench, name: str) -> None:
    lease_seconds = 1 if name == "heartbeat" else LEASE_SECONDS  # a beat within a short job
    words = bench.controller_words(watch=True, lease_seconds=lease_seconds)
    if name in ("hash-memo-replace", "job-failure"):  # they happen at the very start
        TROUBLE[name](bench)
    controller = bench.start(*words, failpoint=f"{name}@1")
    TROUBLE.get(name, _nothing)(bench)
    victim = bench.until(lambda: _victim(bench))
    assert victim.reached[-1] == name
    controller.kill()
    controller.wait()


def _command_dies_at(bench: Bench, name: str) -> None:
    PREPARATIONS.get(name, Bench.settle)(bench)
    folders = {"state": bench.state, "specs": bench.place.specs, "root": bench.place.folder}
    words = [word.format(**folders) for word in COMMANDS[name]]
    code, output = bench.call(*words, failpoint=f"{name}@1")
    assert code == -signal.SIGKILL, output


@pytest.mark.long
def test_a_job_whose_worker_dies_after_every_shard_is_not_given_up(
    workshop: Workshop, bench: Bench
) -> None:
    openings = [
        f"the {who} walked to {where}" for who in WHO for where in ("berlin", "rome", "sea")
    ]
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


def _victim(bench: Bench) -> Process | None:
    return next((process for process in bench.processes.every if process.killed_itself), None)


def _version(bench: Bench) -> int:
    return int(bench.rows("select max(resource_version) from changes")[0][0] or 0)
