"""What does a step of the controller cost while jobs wait, and while a large artifact is hashed?

Run with ``.venv/bin/python benchmarks/loop.py [GiB]`` (default 4). Prints two tables: processor
time of a step and of a resync against waiting jobs x prompts, everything being paused; and the
longest time between two looks at the queue, with the share of a core that hashing takes, against
the size of an artifact. In one process, on a virtual clock that is moved from resync to resync.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import pauses
from tests.simulated import START_TIME, Simulation, capture_spec, texts

WAITING, PROMPTS = (10, 100, 1000), (20, 200, 2000)
STEPS, ROUNDS, WARM_ROUNDS = 20, 3, 2
MIB, GIB = 2**20, 2**30


class MovedClock:
    """The system's clock, moved on by hand between steps."""

    def __init__(self) -> None:
        self.moved = START_TIME - time.monotonic()

    def now(self) -> float:
        """Return Unix seconds."""
        return time.monotonic() + self.moved

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.moved += seconds


def simulation(folder: Path) -> Simulation:
    """Return a controller on a new state folder, under a clock that moves."""
    found = Simulation(folder)
    found.clock = MovedClock()
    found.restart()
    return found


# -- waiting jobs ---------------------------------------------------------------------------


def paused_with(folder: Path, waiting: int, prompts: int) -> Simulation:
    """Return a controller that has seen so many captures, all of them held back by a pause."""
    found = simulation(folder)
    with found.state.database.write() as connection:
        pauses.pause(connection, "all", now=found.clock.now())
    words = [f"the {n} old city is near a quiet river and a busy market" for n in range(prompts)]
    for number in range(waiting):
        both = {"target": texts(f"{number}", *words), "neutral": texts("b")}
        found.apply(capture_spec(prompts=both), f"c{number:04d}", "Capture")
    for _ in range(100_000):
        found.step()
        if found.controller.idle:
            return found
    raise SystemExit("it never came to rest")


def cost_of_steps(found: Simulation) -> tuple[float, float]:
    """Return the median milliseconds of processor of a step and of a whole resync."""
    steps, resyncs = [], []
    for number in range(WARM_ROUNDS + ROUNDS):
        found.clock.advance(found.settings.resync_seconds + 1)
        began = time.process_time()
        found.step()
        while not found.controller.idle:
            found.step()
        if number >= WARM_ROUNDS:
            resyncs.append(time.process_time() - began)
        for _ in range(STEPS):
            found.clock.advance(0.02)
            began = time.process_time()
            found.step()
            steps.append(time.process_time() - began)
    return statistics.median(steps) * 1000, statistics.median(resyncs) * 1000


def waiting_jobs() -> None:
    """Print a line for each number of jobs and prompts."""
    print("| jobs that wait | prompts of each | a step | a resync |\n|---|---|---|---|")
    for waiting in WAITING:
        for prompts in PROMPTS:
            with tempfile.TemporaryDirectory() as folder:
                found = paused_with(Path(folder) / "state", waiting, prompts)
                step, resync = cost_of_steps(found)
                found.state.database.close()
            line = f"| {waiting:,} | {prompts:,} | {step:.1f} ms | {resync:.1f} ms |"
            print(line, flush=True)
            del found
            gc.collect()


# -- a large artifact --------------------------------------------------------------------------


def large_artifact(size: int) -> None:
    """Print the longest step, and the share of a core, of a round over one artifact."""
    with tempfile.TemporaryDirectory() as folder:
        found = simulation(Path(folder) / "state")
        store, digest = found.state.artifacts, "ab" * 32
        staging = store.staging_folder(digest, 1)
        with (staging / "residual.safetensors").open("wb") as stream:
            stream.truncate(size)  # sparse: what is measured is the hash
        told = {"stage": "capture", "digest": digest, "metrics": {}, "createdAt": START_TIME}
        began = time.perf_counter()
        record = store.seal(staging, told)
        whole = time.perf_counter() - began
        with found.state.database.write() as connection:
            artifact_index.record(connection, store.publish(staging, record))
        found.step()
        walls, used = [], []
        for _ in range(max(3, int(whole / 0.05) + 2)):
            found.clock.advance(found.settings.resync_seconds)
            began, before = time.perf_counter(), time.process_time()
            found.step()
            walls.append(time.perf_counter() - began)
            used.append(time.process_time() - before)
        found.state.database.close()
    share = statistics.mean(used) / found.settings.resync_seconds
    print(
        f"| {size / MIB:,.0f} MiB | {whole:.2f} s | {max(walls) * 1000:.0f} ms | {share:.2%} |",
        flush=True,
    )


def main(gibibytes: int) -> None:
    """Print both tables."""
    waiting_jobs()
    print("\n| artifact | hashed at once | longest step | of a core |\n|---|---|---|---|")
    for size in (16 * MIB, 256 * MIB, gibibytes * GIB):
        large_artifact(size)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
