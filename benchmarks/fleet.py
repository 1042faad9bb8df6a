"""How far does one control plane reach? A fleet of nodes on virtual time, the real loop and store.

Run with ``.venv/bin/python benchmarks/fleet.py EXPERIMENTS [--slots 1000] [--state DIR]``. Objects
are stored, reconciled, scheduled, claimed and published as in a controller; only the clock and the
workers are simulated (``tests/simulated.py``). Ten tenants have a tenth of the slots each as quota
(``--no-quotas``: none). When half of the jobs are done a tenth of the nodes is lost. Prints a line
of JSON: control-plane seconds of the processor, per job (``ofItsOwn``: without what keeps to a
share of a core) and by part of the loop, looks and changes a job, virtual throughput, fairness and
what the loss cost. With ``--state`` the fleet stays there, and the same command goes on from there.
``--profile FILE`` counts seconds of the processor.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parents[1]))

from loopscope.controller.observer import Result, Unobserved
from loopscope.specs.keys import Key
from loopscope.state.db import job_queue, jobs, objects, roots
from tests.simulated import Simulation, VirtualClock, experiment_spec, texts

TENANTS, SLOTS_PER_NODE, NODES_LOST = 10, 10, 0.1
SECONDS = {
    "capture": 60.0,
    "decomposition": 30.0,
    "geometry": 20.0,
    "mapping": 20.0,
    "steering": 300.0,
}
SPREAD = 0.5
"""Durations are drawn between these shares below and above the usual ones."""
APPLIED_AT_ONCE = 500
STILL_STEPS = 3
"""A fleet is done when nothing moved in so many steps."""
PARTS = (
    "_resync_if_due", "_read_changes", "_process_due", "_collect_ended_jobs", "_start_jobs",
    "_cancel_unwanted_jobs", "_take_back_lost_leases", "_notice_commands", "_quarantine_damaged",
    "_make_room",
)  # fmt: skip
BY_TIME = ("_resync_if_due", "_quarantine_damaged", "rereads")
"""What keeps to a share of a core, however many jobs there are: by virtual time, not by job."""


class WorkingClock(VirtualClock):
    """Virtual time, beside the real work: a resync keeps to its share of a core."""

    def worked(self) -> float:
        """Return the processor seconds of this process."""
        return time.process_time()


class BusyClock(WorkingClock):
    """For hashing, which keeps to seconds: those that this process works, since no others pass."""

    def elapsed(self) -> float:
        """Return the processor seconds of this process."""
        return self.worked()


@dataclass
class LookCount(Unobserved):
    """Counts the reconciles."""

    looks: int = 0

    def reconciled(self, key: Key, result: Result, seconds: float) -> None:
        """Count one more."""
        self.looks += 1


@dataclass
class Fleet:
    """A simulation whose workers take virtual time, on nodes that can be lost."""

    simulation: Simulation
    slots: int
    random: random.Random
    ends: dict[str, float] = field(default_factory=dict)
    node_of: dict[str, int] = field(default_factory=dict)
    stages: Counter[str] = field(default_factory=Counter)
    began: dict[str, float] = field(default_factory=dict)
    used: Counter[str] = field(default_factory=Counter)
    """Slot seconds by tenant, of jobs that ended before the nodes were lost."""
    lost_at: float | None = None
    away: set[int] = field(default_factory=set)
    """Lost jobs that do not run again yet."""
    restarted_at: float | None = None
    seconds: Counter[str] = field(default_factory=Counter)
    """Processor seconds by part of the loop."""
    steps: int = 0
    counted: LookCount = field(default_factory=LookCount)

    def __post_init__(self) -> None:
        controller = self.simulation.controller
        controller.watch_with(self.counted)
        controller._verifier.clock = BusyClock()
        rereads = controller._converged.rereads
        rereads.owe = self._counting_rereads(rereads.owe)  # type: ignore[method-assign]
        for name in PARTS:
            setattr(controller, name, self._timed(name, getattr(controller, name)))

    def _counting_rereads(self, owe: Callable[[float], None]) -> Callable[[float], None]:
        def owed(worked: float) -> None:
            self.seconds["rereads"] += worked
            owe(worked)

        return owed

    def _timed(self, name: str, part: Callable[[], object]) -> Callable[[], object]:
        def called() -> object:
            began = time.process_time()
            try:
                return part()
            finally:
                self.seconds[name] += time.process_time() - began

        return called

    @property
    def own_seconds(self) -> float:
        """Processor seconds of the loop without what keeps to a share of a core."""
        return self.seconds["step"] - sum(self.seconds[name] for name in BY_TIME)

    def step(self) -> None:
        """Let the loop do all that is due, then let time pass to the next end of a job."""
        began = time.process_time()
        self.simulation.step()
        self.seconds["step"] += time.process_time() - began
        self.steps += 1
        workers, now = self.simulation.workers, self.simulation.clock.time
        busy = Counter(self.node_of[name] for name in self.ends)
        for name in workers.assigned.keys() - self.ends.keys():
            self._begin(name, now, busy)
        if self.away:
            self.away -= self._back()
            self.restarted_at = None if self.away else now
        next_end = min(self.ends.values(), default=now)
        if self.away:  # a controller looks at leases once a second
            next_end = min(next_end, now + 1.0)
        self.simulation.clock.time = max(now + 0.5, next_end)
        self._complete()

    def _begin(self, worker: str, now: float, busy: Counter[int]) -> None:
        nodes = range(self.slots // SLOTS_PER_NODE)
        node = next(n for n in nodes if busy[n] < SLOTS_PER_NODE)
        busy[node] += 1
        self.node_of[worker] = node
        stage = self.simulation.workers.orders[self.simulation.workers.assigned[worker][1]].stage
        draw = self.random.uniform(1 - SPREAD, 1 + SPREAD)
        self.began[worker], self.ends[worker] = now, now + SECONDS.get(stage, 30.0) * draw

    def _complete(self) -> None:
        began = time.process_time()
        now, workers = self.simulation.clock.time, self.simulation.workers
        for worker in [name for name, at in self.ends.items() if at <= now]:
            del self.ends[worker]
            if worker in workers.assigned:
                if self.lost_at is None:
                    self.used[self._tenant(worker)] += now - self.began[worker]
                self.stages[workers._run(worker)] += 1
        self.seconds["workers"] += time.process_time() - began

    def _tenant(self, worker: str) -> str:
        with self.simulation.state.database.read() as connection:
            job = jobs.head(connection, self.simulation.workers.assigned[worker][0])
        return job.object.namespace if job is not None else ""

    def lose_nodes(self) -> int:
        """Kill all workers of a tenth of the nodes; return how many jobs they had."""
        workers = self.simulation.workers
        lost = set(range(max(1, int(self.slots / SLOTS_PER_NODE * NODES_LOST))))
        gone = [name for name in self.ends if self.node_of[name] in lost]
        self.away = {workers.assigned[name][0] for name in gone}
        self.lost_at = self.simulation.clock.time
        for name in gone:
            workers.dead.add(name)
            workers.models.pop(name, None)
            workers.assigned.pop(name)
            del self.ends[name]
        workers.slots = self.slots - len(lost) * SLOTS_PER_NODE
        return len(gone)

    def _back(self) -> set[int]:
        running = {job for job, _ in self.simulation.workers.assigned.values()}
        with self.simulation.state.database.read() as connection:
            heads = [jobs.head(connection, job) for job in self.away - running]
        active = {job.id for job in heads if job is not None and job.state in jobs.ACTIVE}
        return self.away - active


def tenant(number: int) -> str:
    """Return the namespace of an experiment; the first tenant has more than its share of them."""
    return f"team-{0 if number % 3 == 0 else number % TENANTS}"


def apply_all(simulation: Simulation, number: int) -> float:
    """Store the experiments that are not there yet; return the processor seconds that took."""
    with simulation.state.database.read() as connection:
        there = roots.counted(connection).get("Experiment", 0)
    began = time.process_time()
    for start in range(there, number, APPLIED_AT_ONCE):
        with simulation.state.database.write() as connection:
            for n in range(start, min(number, start + APPLIED_AT_ONCE)):
                prompts = {"target": texts(f"a {n}"), "neutral": texts(f"b {n}")}
                key, spec = (
                    Key("Experiment", tenant(n), f"e{n:06d}"),
                    experiment_spec(prompts=prompts),
                )
                objects.apply(connection, key, spec, now=simulation.clock.now())
    return time.process_time() - began


def fairness(shares: list[float]) -> float:
    """Return Jain's index: 1 where all have the same, 1/n where one has everything."""
    return (
        sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)) if any(shares) else 0.0
    )


def run(path: Path, number: int, slots: int, *, quotas: bool = True) -> dict[str, object]:
    """Play a fleet to its end; return what was measured."""
    hard = {f"team-{n}": {"slots": slots // TENANTS} for n in range(TENANTS) if quotas}
    simulation = Simulation(
        path, slots=slots, clock=WorkingClock(), job_starts_per_minute=10_000, lease_seconds=1e9,
        progress_timeout_seconds=1e9, resource_quotas=hard,
    )  # fmt: skip
    applying = apply_all(simulation, number)
    clock = path / "fleet.time"
    if clock.exists():  # it goes on where it was stopped; what ran then is lost and starts again
        simulation.clock.time = float(clock.read_text())
    fleet = Fleet(simulation, slots, random.Random(0))
    total, began, wall, lost = 5 * number, simulation.clock.time, time.perf_counter(), 0
    held: list[Counter[str]] = []
    still, most_waiting = 0, 0
    while True:
        fleet.step()
        done = sum(fleet.stages.values())
        if fleet.lost_at is None and done >= total // 2:
            held.append(running_by_tenant(simulation))
            lost = fleet.lose_nodes()
        still = still + 1 if not simulation.workers.assigned and simulation.controller.idle else 0
        if still == STILL_STEPS:
            break
        if fleet.steps % 50 == 0:
            clock.write_text(f"{simulation.clock.time}")
            waiting = how_many_wait(simulation)
            most_waiting = max(most_waiting, waiting)
            words = f"{done} of {total} jobs, {waiting} wait, {fleet.seconds['step']:.0f} s"
            print(words, file=sys.stderr, flush=True)
    ended, virtual = sum(fleet.stages.values()), simulation.clock.time - began
    with simulation.state.database.read() as connection:
        ready = roots.counted_by_ready(connection).get(("Experiment", "True"), 0)
        count, changes = len(objects.all_keys(connection)), objects.resource_version(connection)
    middle = [float(held[0][f"team-{n}"]) for n in range(TENANTS)] if held else []
    return {
        "experiments": number,
        "ready": ready,
        "objects": count,
        "slots": slots,
        "jobs": ended,
        "applySeconds": round(applying, 2),
        "stepSeconds": round(fleet.seconds["step"], 2),
        "millisecondsPerJob": round(1000 * fleet.seconds["step"] / max(1, ended), 2),
        "ofItsOwn": round(1000 * fleet.own_seconds / max(1, ended), 2),
        "looksPerJob": round(fleet.counted.looks / max(1, ended), 1),
        "changesPerJob": round(changes / max(1, ended), 1),
        "parts": {name: round(fleet.seconds[name], 2) for name in (*PARTS, "rereads", "workers")},
        "steps": fleet.steps,
        "wallSeconds": round(time.perf_counter() - wall, 1),
        "virtualSeconds": round(virtual, 1),
        "jobsPerVirtualHour": round(3600 * ended / virtual) if virtual else None,
        "waitingMost": most_waiting,
        "fairness": round(fairness(middle), 3),
        "runningByTenant": middle,
        "fairnessOfUse": round(fairness([fleet.used[f"team-{n}"] for n in range(TENANTS)]), 3),
        "lostJobs": lost,
        "virtualSecondsToRestart": None
        if fleet.restarted_at is None or fleet.lost_at is None
        else round(fleet.restarted_at - fleet.lost_at, 1),
        "doneTwice": sum(n for stage, n in fleet.stages.items() if "fenced" in stage),
    }


def how_many_wait(simulation: Simulation) -> int:
    """Return how many jobs wait."""
    with simulation.state.database.read() as connection:
        states = job_queue.counts(connection)
    return sum(number for (state, _), number in states.items() if state == "pending")


def running_by_tenant(simulation: Simulation) -> Counter[str]:
    """Return how many jobs of each tenant run."""
    with simulation.state.database.read() as connection:
        return Counter(
            job.object.namespace for job in job_queue.active(connection) if job.state == "running"
        )


def main() -> None:
    """Measure one size."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("experiments", type=int)
    reader.add_argument("--slots", type=int, default=1000)
    reader.add_argument("--state", type=Path)
    reader.add_argument("--no-quotas", dest="quotas", action="store_false")
    reader.add_argument("--profile", type=Path)
    given = reader.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder:
        path = given.state or Path(folder) / "state"
        if given.profile is not None:
            import cProfile

            with cProfile.Profile(time.process_time) as profile:
                found = run(path, given.experiments, given.slots, quotas=given.quotas)
            profile.dump_stats(given.profile)
        else:
            found = run(path, given.experiments, given.slots, quotas=given.quotas)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
