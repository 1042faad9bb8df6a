"""A controller in a bottle: the real store, a clock that tests move, workers that obey.

A simulated worker publishes small but valid artifacts through the real ``state`` API; what they
hold is a pure function of the job's payload, as it is for the real stages.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Collection
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from loopscope.controller.controller import Controller
from loopscope.controller.jobs.scheduling import Place
from loopscope.controller.reconcile.resolution import Resolution, Resolver
from loopscope.controller.settings import Settings
from loopscope.reconcilers.references import InputReference
from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.state import failpoints, folder
from loopscope.state.clock_reading import ClockReading
from loopscope.state.db import jobs, objects
from loopscope.state.folder import StateFolder, open_state
from loopscope.state.orders import Order
from loopscope.state.records import JobRecord, ObjectRecord
from loopscope.views.settled import family, is_settled
from tests import promises
from tests.fake_stages import D_MODEL
from tests.fake_worker import FakeWorker

START_TIME = 1_000_000.0


@dataclass
class VirtualClock:
    """Time stands still until a test moves it; the date can be set besides."""

    time: float = START_TIME
    ahead: float = 0.0
    """How far somebody set the date ahead."""

    def now(self) -> float:
        return self.time + self.ahead

    def elapsed(self) -> float:
        return self.time

    def worked(self) -> float:
        return 0.0

    def reading(self) -> ClockReading:
        return ClockReading(self.now(), self.elapsed(), "simulated")

    def advance(self, seconds: float) -> None:
        """Let time pass, for whoever works and for whoever is stopped."""
        self.time += seconds

    def set(self, seconds: float) -> None:
        """Set the date ahead, or back; no time passes."""
        self.ahead += seconds


class Immediately(FuturesExecutor):
    """Runs what is submitted before ``submit`` returns."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@dataclass
class Inputs:
    """What references resolve to; tests change it to change the world."""

    layers: int = 4
    identity: dict[str, str] = field(default_factory=dict)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    """Where each one lies, if not in its first place."""
    gone: set[str] = field(default_factory=set)
    """Folders that are not there any more."""

    def move(self, name: str, *, old_stays: bool = False) -> str:
        """Move a model or dictionary to a new folder; return that folder."""
        before = self._folder(name)
        self.folders[name] = before + "'"
        if not old_stays:
            self.gone.add(before)
        return self.folders[name]

    def _folder(self, name: str) -> str:
        return self.folders.get(name, f"/cache/{name}")

    def resolve(self, reference: InputReference) -> Resolution:
        name = str(reference.reference.get("name") or reference.reference.get("path"))
        if name in self.answers:
            return Resolution(reference, **self.answers[name])
        ref = {"identity": digest(self.identity.get(name, name)), "folder": self._folder(name)}
        if reference.kind == "model":
            return Resolution(reference, {"ref": ref, "d_model": D_MODEL, "n_layers": self.layers})
        facts = {"ref": ref, "d_in": D_MODEL, "d_sae": 32, "hook_name": None}
        return Resolution(reference, facts)


@dataclass
class SimulatedWorkers:
    """The executor in line: a job runs in this process, to its end, when a test says so."""

    state: StateFolder
    clock: VirtualClock
    slots: int = 1
    assigned: dict[str, tuple[int, int]] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)
    code: str | None = None
    """The sources that workers find, if not those of their order."""
    dead: set[str] = field(default_factory=set)
    gone: Collection[str] = ()
    failures: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Stage to (reason, transient): how its next jobs end until the entry is removed."""
    out_of_time: bool = False
    """Whether one gave its job back because its time was too short for more."""
    models: dict[str, str | None] = field(default_factory=dict)
    """The workers that were given a job and live, with the model that each holds."""
    lacking: str = "no node has so much memory"
    memory_bytes_max: float = math.inf
    """What a job may need; ``lacking`` says why one that needs more has no place."""
    _ended: list[int] = field(default_factory=list)
    _spawned: int = 0

    def places(self) -> tuple[Place, ...]:
        """Each idle worker is one that held a model before; the rest are empty slots."""
        if self.out_of_time:
            return ()
        idle = [worker for worker in self.models if worker not in self.assigned]
        free = max(0, self.slots - len(self.assigned))
        warm = [Place("cpu", worker, self.models[worker]) for worker in idle[:free]]
        return (*warm, *[Place("cpu")] * (free - len(warm)))

    def refusal(self, memory_bytes: int) -> str | None:
        return self.lacking if memory_bytes > self.memory_bytes_max else None

    def free_worker(self, place: Place, memory_bytes: int = 0) -> str | None:
        if place not in self.places():
            return None
        self._spawned += place.worker is None
        return place.worker or f"worker-{self._spawned}"

    def start(self, worker: str, order: Order, model: str | None = None) -> None:
        self.assigned[worker] = (order.job, order.token)
        self.orders[order.token] = order
        self.models[worker] = model or self.models.get(worker)

    def finished(self) -> list[int]:
        ended, self._ended = self._ended, []
        return ended

    def time_is_up(self) -> bool:
        return self.out_of_time

    def is_alive(self, worker: str) -> bool:
        return worker in self.models and worker not in self.dead

    def how_it_ended(self, worker: str) -> str:
        return ""

    def kill(self, worker: str) -> None:
        self.assigned.pop(worker, None)
        self.models.pop(worker, None)

    def stop(self) -> list[str]:
        stopped = list(self.models)
        self.assigned.clear()
        self.models.clear()
        return stopped

    # -- what tests make them do -------------------------------------------------

    def die(self) -> None:
        """Every worker is killed in the middle of its job."""
        self.dead |= set(self.assigned)
        self.models = {w: model for w, model in self.models.items() if w not in self.dead}

    def run_out_of_time(self) -> None:
        """The first worker with a job gives it back between two shards, and ends."""
        name = next(iter(self.assigned))
        worker = self._worker(name)
        worker.release()
        self.kill(name)
        self.out_of_time = True
        self._ended.append(worker.job_id)

    def crash_after_rename(self) -> None:
        """Every worker dies when its artifact lies on disk but nothing is committed."""

        def crash(name: str) -> None:
            if name == "artifact-renamed":
                raise Crash

        with failpoints.handled_by(crash):
            for worker in list(self.assigned):
                with contextlib.suppress(Crash):
                    for _ in self._worker(worker).steps():
                        pass
        self.die()

    def complete(self) -> list[str]:
        """Run every job that was handed out to its end; return the stages that ran."""
        return [self._run(worker) for worker in list(self.assigned)]

    def _run(self, name: str) -> str:
        worker = self._worker(name)
        del self.assigned[name]
        self._ended.append(worker.job_id)
        job = worker.job()
        assert job is not None
        try:
            for _ in worker.steps():
                pass
        except BaseException:
            self.dead.add(name)
            raise
        return f"{job.stage} (fenced)" if worker.outcome == "fenced" else job.stage

    def _worker(self, name: str) -> FakeWorker:
        assigned = self.assigned[name]
        order = self.orders[assigned[1]]
        worker = FakeWorker(
            self.state, self.clock, *assigned, dies_of_errors=True, gone=self.gone,
            order=order, code=self.code or order.code,
        )  # fmt: skip
        job = worker.job()
        worker.failure = self.failures.get(job.stage) if job is not None else None
        return worker


class Crash(BaseException):
    """The process is gone from this line on; nothing in the product catches it."""


def texts(*words: str) -> dict[str, Any]:
    """Return a text set given in place."""
    return {"texts": list(words)}


def experiment_spec(**changes: Any) -> dict[str, Any]:
    """Return the canonical spec of a small experiment; ``changes`` replace its fields."""
    spec = {
        "model": {"name": "tiny", "source": {"folder": "/models/tiny"}},
        "hook": "blocks.2.hook_resid_post",
        "prompts": {"target": texts("Paris is", "Lyon is"), "neutral": texts("Rome is", "Oslo is")},
        "dictionaries": {"coarse": {"path": "/coarse"}, "fine": {"path": "/fine"}},
        "steering": {
            "strengths": [0.5],
            "prompts": texts("We went to"),
            "neutralText": texts("A plain sentence."),
            "lexicon": texts("paris"),
        },
    }
    return canonical("Experiment", {**spec, **changes})


def capture_spec(**changes: Any) -> dict[str, Any]:
    """Return the canonical spec of the experiment's capture; ``changes`` replace its fields."""
    fields = ("model", "hook", "prompts", "positions", "maxTokens")
    spec = {name: value for name, value in experiment_spec().items() if name in fields}
    return canonical("Capture", {**spec, **changes})


def canonical(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return a spec defaulted and canonical, as apply stores it; a None drops the field."""
    given = {name: value for name, value in spec.items() if value is not None}
    return SPEC_BY_KIND[kind].model_validate(given).canonical()


def _temporary_folder() -> Path:
    """Return a folder that lives as long as this process; ``tmp_path`` would be too short."""
    folder = Path(tempfile.mkdtemp(prefix="loopscope-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _migrated() -> Path:
    folder = _temporary_folder()
    open_state(folder).database.close()
    return folder


def new_state(path: Path) -> StateFolder:
    """Open a fresh state folder, copying a database that was migrated once."""
    path.mkdir(parents=True)
    if os.environ.get("LOOPSCOPE_TEST_DATABASE"):
        return open_state(path)
    shutil.copy(_migrated() / "state.db", path / "state.db")
    return open_state(path)


class Simulation:
    """One state folder with its controller, workers and clock."""

    def __init__(
        self, path: Path, *, slots: int = 1, clock: VirtualClock | None = None, **settings: Any
    ) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self.state = open_state(path) if path.exists() else new_state(path)
        self.clock = clock or VirtualClock()
        self.inputs = Inputs()
        self.workers = SimulatedWorkers(self.state, self.clock, slots, gone=self.inputs.gone)
        self.settings = Settings(**settings)
        self.restart()

    def restart(self) -> None:
        """Forget everything in memory, as after a crash of the controller."""
        resolver = Resolver(Immediately(), lambda: None, self.inputs.resolve)
        self.controller = Controller(self.state, self.settings, self.clock, self.workers, resolver)

    # -- what people do ----------------------------------------------------------

    def apply(self, spec: dict[str, Any] | None = None, name: str = "france", kind="Experiment"):
        """Store an object; return what became of it."""
        with self.state.database.write() as connection:
            key = Key(kind, "default", name)
            spec = spec if spec is not None else experiment_spec()
            return objects.apply(connection, key, spec, now=self.clock.now())

    def delete(self, name: str = "france", kind: str = "Experiment") -> None:
        with self.state.database.write() as connection:
            objects.remove(connection, Key(kind, "default", name), now=self.clock.now())

    # -- time passes -------------------------------------------------------------

    def step(self) -> None:
        self.controller.step()

    def step_until_running(self, steps_max: int = 10) -> None:
        """Step until a worker holds a job."""
        for _ in range(steps_max):
            self.controller.step()
            if self.workers.assigned:
                return
        raise AssertionError(f"no job was started: {self.words()}")

    def look_on(self, seconds: float) -> None:
        """Let time pass in which the controller goes on and no worker is heard of."""
        while seconds > 0:
            self.controller.step()
            self.clock.advance(min(seconds, 1.0))
            seconds -= 1.0

    def settle(self, steps_max: int = 80) -> list[str]:
        """Step, let workers work and move the clock until settled; return the stages that ran."""
        ran: list[str] = []
        for _ in range(steps_max):
            self.controller.step()
            if not self.workers.assigned and self.controller.idle and self.is_settled():
                return ran
            ran += self.workers.complete()
            self.clock.advance(0.5)
        raise AssertionError(f"not settled after {steps_max} steps: {self.words()}")

    def resync(self) -> list[str]:
        """Let a resync become due, then settle; return the stages that ran."""
        self.clock.advance(self.settings.resync_seconds + 1)
        return self.settle()

    # -- what can be seen --------------------------------------------------------

    def is_settled(self) -> bool:
        with self.state.database.read() as connection:
            keys = [record.key for record in objects.listed(connection)]
            return is_settled(connection, family(connection, keys))

    def get(self, name: str, kind: str | None = None) -> ObjectRecord:
        found = [r for r in self.objects() if r.key.name == name and kind in (None, r.key.kind)]
        assert len(found) == 1, f"{len(found)} objects named {name}"
        return found[0]

    def objects(self) -> list[ObjectRecord]:
        with self.state.database.read() as connection:
            return objects.listed(connection)

    def jobs(self) -> list[JobRecord]:
        with self.state.database.read() as connection:
            heads = jobs.listed(connection, ended=True)
            found = [jobs.get(connection, head.id) for head in heads]
        return [job for job in found if job is not None]

    def words(self) -> dict[str, str]:
        """Return each object's Ready condition in words."""
        ready = {r.key.name: r.status.condition("Ready") for r in self.objects()}
        return {n: f"{c.status} {c.reason}: {c.message}" if c else "?" for n, c in ready.items()}

    def reason(self, name: str) -> str:
        condition = self.get(name).status.condition("Ready")
        assert condition is not None
        return condition.reason

    def artifact_folder(self, name: str) -> Path:
        reference = self.get(name).status.artifact
        assert reference is not None, f"{name} has no artifact"
        return self.state.artifacts.folder(reference.stage, reference.digest)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row of every table."""
        with self.state.database.read() as connection:
            return promises.rows(connection)

    def event_reasons(self, name: str) -> list[str]:
        """Return the reasons of an object's events, oldest first."""
        rows = self.rows()["events"]
        return [row[5] for row in rows if row[3] == name]


def settled_experiment(path: Path) -> Simulation:
    """Return a settled experiment named france, 1000 s after it was applied."""
    copy_state(_settled(), path)
    simulation = Simulation(path)
    simulation.clock.time = START_TIME + 1000
    return simulation


def copy_state(state: Path, path: Path) -> None:
    """Copy a folder, and a database on a server with it."""
    shutil.copytree(state, path, ignore=shutil.ignore_patterns(folder.SERVER))
    if folder.server_of(state) is not None:
        copy = path / "copy"
        folder.database_of(state).copy_to(copy)
        folder.database_of(path).restore_from(copy)


@functools.cache
def _settled() -> Path:
    path = _temporary_folder() / "state"
    simulation = Simulation(path)
    simulation.apply()
    simulation.settle()
    simulation.state.database.close()
    return path
