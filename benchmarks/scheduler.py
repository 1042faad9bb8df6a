"""Scheduler benchmark: what does the choice of the next job cost, against how many wait?

Run with ``.venv/bin/python benchmarks/scheduler.py [waiting ...]`` (1,000, 10,000 and 100,000
unless told otherwise). The pure function alone, on 1,000 slots of which 900 are taken, ten
tenants with a quota each. Prints processor seconds: of the first start, and of a decision about
every job.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from loopscope.controller.jobs.scheduling import (
    Limits,
    PendingJob,
    Place,
    QueueSnapshot,
    RunningJob,
    first_start,
    schedule,
)

SLOTS, TAKEN, TENANTS, NOW = 1000, 900, 10, 1_000_000.0


def snapshot(waiting: int) -> QueueSnapshot:
    """Return a queue with as many jobs that wait, of ten tenants in turns."""
    quotas = {f"team-{n}": {"slots": SLOTS // TENANTS} for n in range(TENANTS)}
    return QueueSnapshot(
        NOW,
        Limits(job_starts_per_minute=10_000, resource_quotas=quotas, slots_per_experiment=50),
        tuple(
            PendingJob(
                n, NOW - n % 977, NOW, (f"experiment/team-{n % TENANTS}/e{n // 5}",),
                model=f"m{n % 4}", namespaces=(f"team-{n % TENANTS}",),
            )
            for n in range(waiting)
        ),
        tuple(
            RunningJob(10**7 + n, "cpu", f"experiment/team-{n % TENANTS}/r{n}", 0, f"team-{n % 9}")
            for n in range(TAKEN)
        ),
        tuple(Place("cpu", f"w{n}", f"m{n % 4}") for n in range(SLOTS - TAKEN)),
    )  # fmt: skip


def seconds_of(what: Callable[[], object]) -> float:
    """Return the processor seconds of a call."""
    began = time.process_time()
    what()
    return time.process_time() - began


def main(sizes: list[int]) -> None:
    """Print one line a size."""
    for waiting in sizes:
        queue = snapshot(waiting)
        first = seconds_of(lambda: first_start(queue))  # noqa: B023 (called at once)
        every = seconds_of(lambda: schedule(queue))  # noqa: B023
        print(
            f"{waiting:>9,} waiting: first start {first:.3f} s, every decision {every:.3f} s",
            flush=True,
        )


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [1_000, 10_000, 100_000])
