"""Measure what Ray adds to a job: joining a cluster, the first worker, an order and its answer.

Usage: ``python benchmarks/ray_overhead.py [--orders 50]``. The workers answer at once, so that all
that is measured is the way there and back; processes of this machine are measured beside them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from loopscope.controller.jobs import local_processes
from loopscope.controller.jobs.on_ray.making import ray_actors
from loopscope.controller.jobs.scheduling import Place
from loopscope.controller.settings import Settings
from loopscope.state.folder import open_state
from loopscope.state.orders import Order

ANSWERING = (sys.executable, "-S", "-c", """
import json, os, sys
for line in sys.stdin:
    for word in ("began", "ended"):
        os.write(1, json.dumps({word: json.loads(line)["job"]}).encode() + b"\\n")
""")  # fmt: skip


def round_trips(executor: Any, worker: str, orders: int) -> list[float]:
    """Return the seconds from each order to the moment when its end is known."""
    seconds = []
    for job in range(orders):
        began = time.perf_counter()
        executor.start(worker, Order(job, 1))
        while job not in executor.finished():
            time.sleep(0.0005)
        seconds.append(time.perf_counter() - began)
    return seconds


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long something took, and its answer."""
    began = time.perf_counter()
    answer = what()
    return time.perf_counter() - began, answer


def processor_seconds_of_ray() -> float:
    """Return what the processes of Ray below this one took so far, and its own threads."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in family)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=50)
    parser.add_argument("--idle-seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    local_processes.WORKER_COMMAND = ANSWERING
    with tempfile.TemporaryDirectory() as folder:
        state = open_state(Path(folder) / "state")
        here = local_processes.LocalProcesses(state.path, state.logs, ("cpu",), lambda: None)
        start, worker = timed(lambda: here.free_worker(Place("cpu")))
        report("processes", start, round_trips(here, worker, arguments.orders))
        here.stop()
        settings = Settings(executor="ray", ray_address="local")
        context = ray_actors(state, settings, lambda: None, 1, None, command=ANSWERING)
        joining, actors = timed(context.__enter__)
        start, worker = timed(lambda: actors.free_worker(Place("cpu")))
        spent = processor_seconds_of_ray()
        print(f"ray: joining a cluster of its own {joining:.2f} s")
        print(f"ray: up to the first worker {spent:.1f} s of processor time in all")
        report("ray", start, round_trips(actors, worker, arguments.orders))
        before = processor_seconds_of_ray()
        time.sleep(arguments.idle_seconds)
        used = (processor_seconds_of_ray() - before) / arguments.idle_seconds
        print(f"ray: while a worker is at work elsewhere, {used:.1%} of one core")
        context.__exit__(None, None, None)
    print(f"load {os.getloadavg()[0]:.1f}")


def report(name: str, start: float, seconds: list[float]) -> None:
    """Print one line."""
    median, worst = statistics.median(seconds), max(seconds)
    print(
        f"{name}: first worker after {start:.2f} s; order to end {median * 1000:.1f} ms in the "
        f"median, {worst * 1000:.1f} at most"
    )


if __name__ == "__main__":
    main()
