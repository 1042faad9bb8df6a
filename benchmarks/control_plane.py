"""How quick, quiet and frugal is the control plane with many objects?

Run with ``.venv/bin/python benchmarks/control_plane.py [objects]`` (default 10,000). Prints
a line a claim: from the edit of a file to the row of its job, the start of ``loopscope get``, the
share of a core that an idle controller takes, memory over a simulated hour of churn. Exit status 1
when one is missed.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import structlog
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.many_specs import settle_all, write_specs
from tests.simulated import Simulation, capture_spec, texts
from tests.tiny_experiment import document

REPOSITORY = Path(__file__).parents[1]
EDITS, STARTS, IDLE_SECONDS, CHURN_SECONDS = 40, 7, 30.0, 3600.0
EDIT_P95_SECONDS, START_SECONDS, IDLE_SHARE, GROWTH_BYTES = 0.150, 0.8, 0.01, 5 * 2**20
OBJECTS_PER_FILE, PATIENCE_SECONDS = 6, 300.0


def main(number: int) -> int:
    """Measure all claims; return how many were missed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        specs = write_specs(place, number // OBJECTS_PER_FILE)
        time.sleep(2.5)  # files younger than two seconds are not remembered
        words = ("apply", "-f", str(specs), "--root", str(place))
        if loopscope(place, *words).wait() != 0:
            raise SystemExit("the specs were not applied")
        number = settle_all(place / "state", specs)
        missed = [measure(place, number) for measure in (cold_start, idle_and_edits)]
        missed.append(churn(place / "churn"))
    return sum(missed)


def told(what: str, value: str, within: bool) -> int:
    """Print one line; return 1 if the claim was missed."""
    print(f"{what}: {value}{'' if within else '  MISSED'}", flush=True)
    return int(not within)


# -- the world ----------------------------------------------------------------------------


def loopscope(place: Path, *words: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command on the filled folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "loopscope", "--state", str(place / "state"), *words],
        cwd=REPOSITORY,
        env={**os.environ, "LOOPSCOPE_CACHE": str(place / "cache")},
        stdout=subprocess.DEVNULL,
        **options,
    )


# -- claims -------------------------------------------------------------------------------


def cold_start(place: Path, number: int) -> int:
    """``loopscope get`` of one object, each time a new process; and an empty interpreter beside."""
    ours, bare = [], []
    for _ in range(STARTS):
        ours.append(seconds_of(lambda: loopscope(place, "get", "experiment", "e00000").wait()))
        command = [sys.executable, "-c", "pass"]
        bare.append(seconds_of(lambda: subprocess.run(command, check=True)))  # noqa: B023
    median = statistics.median(ours)
    text = f"{median:.2f} s (an empty interpreter: {statistics.median(bare):.2f} s)"
    return told(f"loopscope get, cold, {number:,} objects", text, median < START_SECONDS)


def seconds_of(what: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def idle_and_edits(place: Path, number: int) -> int:
    """One controller that watches a folder: what it takes when idle, how soon it sees an edit."""
    specs = place / "specs"
    log = (place / "controller.log").open("wb")
    words = ("controller", "--watch", str(specs), "--root", str(place), "--slots", "1")
    paused = loopscope(place, "pause", "--all")
    paused.wait()
    process = loopscope(place, *words, stderr=log)
    try:
        settle(process.pid)
        share = cpu_share(process.pid, IDLE_SECONDS)
        text = f"{share:.2%} of a core over {IDLE_SECONDS:.0f} s"
        missed = told(f"idle controller, {number:,} objects", text, share < IDLE_SHARE)
        waits = sorted(edited(place, n) for n in range(1, EDITS + 1))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
    p95 = waits[int(0.95 * len(waits)) - 1]
    text = f"median {statistics.median(waits) * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms"
    return missed + told(
        f"file edit to job row, {number:,} objects, {EDITS} edits", text, p95 < EDIT_P95_SECONDS
    )


def edit(specs: Path, n: int) -> None:
    """Give one experiment other prompts, as an editor does: beside the file, then over it."""
    lines = {
        "target": [f"the food in paris {n} was {i}" for i in range(24)],
        "neutral": [f"the food in rome {n} was {i}" for i in range(24)],
    }
    prompts = {condition: {"texts": texts} for condition, texts in lines.items()}
    new = specs / ".edited.tmp"
    new.write_text(yaml.safe_dump(document("e00001", prompts=prompts)))
    new.rename(specs / "e00001.yaml")


def edited(place: Path, n: int) -> float:
    """Edit, and return the seconds until the job's row is there."""
    before = newest_job(place)
    began = time.perf_counter()
    edit(place / "specs", n)
    until(lambda: newest_job(place) != before, 0.001)
    waited = time.perf_counter() - began
    time.sleep(0.5)
    return waited


def newest_job(place: Path) -> int | None:
    """Return the highest job id."""
    with closing(sqlite3.connect(place / "state" / "state.db")) as connection:
        found: int | None = connection.execute("select max(id) from jobs").fetchone()[0]
    return found


def until(what: Callable[[], bool], pause: float = 0.05) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError("it never came")
        time.sleep(pause)


def settle(pid: int) -> None:
    """Wait until the controller has looked at everything once."""
    until(lambda: cpu_share(pid, 2.0) < 0.1)


def cpu_share(pid: int, seconds: float) -> float:
    """Return the share of a core that a process takes."""
    process = psutil.Process(pid)
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / seconds


def churn(path: Path) -> int:
    """An hour of edits, deletions and finished work on a virtual clock; memory at its quarters."""
    simulation = Simulation(path)
    process, seen = psutil.Process(), []
    began, quarter = simulation.clock.now(), CHURN_SECONDS / 4
    n = 0
    while simulation.clock.now() < began + CHURN_SECONDS:
        n += 1
        prompts = {"target": texts(f"a {n}"), "neutral": texts(f"b {n}")}
        simulation.apply(capture_spec(prompts=prompts), f"cap-{n % 20}", "Capture")
        if n % 7 == 0:
            simulation.delete(f"cap-{n % 20}", "Capture")
        for _ in range(4):
            simulation.step()
            simulation.workers.complete()
            simulation.clock.advance(3.0)
        if simulation.clock.now() - began >= quarter * (len(seen) + 1):
            gc.collect()
            seen.append(process.memory_info().rss)
    growth = seen[-1] - seen[1]
    text = f"{growth / 2**20:+.1f} MiB from half an hour to an hour ({n} edits; {_mib(seen)})"
    return told("memory over a simulated hour", text, growth < GROWTH_BYTES)


def _mib(sizes: list[int]) -> str:
    return ", ".join(f"{size / 2**20:.0f}" for size in sizes) + " MiB at its quarters"


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
