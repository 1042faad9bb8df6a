"""A place with a tiny experiment, a fork server, and what a user does there."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopscope.specs.keys import Key
from loopscope.state.db import objects
from loopscope.state.folder import open_state
from loopscope.state.processes import process_name
from loopscope.state.records import ObjectRecord
from loopscope.views.settled import family, is_settled
from tests.chaos.fork_server import ForkedProcess, ForkServer
from tests.chaos.processes import Process, Processes
from tests.integration.real import PATIENCE_SECONDS, Place, eventually
from tests.tiny_experiment import document

STEERING = document("any")["spec"]["steering"] | {"samplesPerPrompt": 2, "maxNewTokens": 12}
SELECTION = document("any")["spec"]["selection"]
TEXTS = document("any")["spec"]["prompts"]
VARIANTS: dict[str, dict[str, Any]] = {
    "as it was": {},
    "another cut-off": {"mapping": {"minCosine": 0.4, "topK": 4}},
    "fewer candidates": {"selection": SELECTION | {"top": 2}},
    "other strengths": {"steering": STEERING | {"strengths": [0.25, 0.75, 1.5]}},
    "other prompts": {"prompts": TEXTS | {"target": {"file": "../texts/more.txt"}}},
    "a stricter gate": {"gate": {"minSubfeatures": 2}},
}
"""Edits of the spec: each makes other stages run again, and each is taken back."""
FRESH = "strength "
"""How variants begin that nobody asked for before: a number follows, and steering is new work."""
NAMES = ("tiny", "second")
LEASE_SECONDS = 3
"""Short, so that a worker that is stopped for some seconds loses its job."""


@dataclass
class Bench:
    """The experiment's folder, one state folder, and the processes that work on it."""

    place: Place
    server: ForkServer
    state: Path
    processes: Processes

    @staticmethod
    def at(folder: Path, server: ForkServer, state: str = "state") -> Bench:
        """Write the inputs into ``folder`` unless they are there; the state is ``folder/state``."""
        place = Place(folder)
        write(place, "as it was")
        arrivals = folder / f"{state}.arrivals"
        return Bench(place, server, folder / state, Processes(server.journal, arrivals))

    def start(self, *words: str, failpoint: str | None = None, **options: Any) -> ForkedProcess:
        """Start ``loopscope <words>`` on the state folder."""
        environment = self.place.environment(failpoint)
        environment["LOOPSCOPE_FAILPOINT_LOG"] = str(self.processes.arrivals)
        return self.server.spawn(
            *("loopscope", "--state", str(self.state), *words), environment=environment, **options
        )

    def call(self, *words: str, failpoint: str | None = None) -> tuple[int, str]:
        """Run a command to its end; return its exit status and output."""
        output = self.state.with_name(f"{self.state.name}.output")
        with output.open("w+") as stream:
            process = self.start(*words, failpoint=failpoint, stdout=stream, stderr=stream)
            code = process.wait()
        return code, output.read_text()

    def run_words(self) -> tuple[str, ...]:
        return "run", str(self.place.specs), "--root", str(self.place.folder)

    def apply_words(self) -> tuple[str, ...]:
        return "apply", "-f", str(self.place.specs), "--root", str(self.place.folder)

    def controller_words(
        self, *, watch: bool, lease_seconds: int = LEASE_SECONDS
    ) -> tuple[str, ...]:
        words = (
            *("controller", "--resync-seconds", "1", "--lease-seconds", str(lease_seconds)),
            *("--job-starts-per-minute", "100000"),
        )
        folder = ("--watch", str(self.place.specs), "--root", str(self.place.folder))
        return (*words, *folder) if watch else words

    def objects(self) -> list[ObjectRecord]:
        """Return the experiments and all that they own; nothing where there is no database."""
        if not (self.state / "state.db").exists():
            return []
        with open_state(self.state).database.read() as connection:
            return family(connection, self.keys())

    def settled(self) -> bool:
        """Whether everything was acted on and is Ready or Stalled, and no job is left."""
        if not (self.state / "state.db").exists():
            return False
        with open_state(self.state).database.read() as connection:
            known = all(objects.get(connection, key) for key in self.keys())
            return known and is_settled(connection, family(connection, self.keys()))

    def keys(self) -> list[Key]:
        return [Key("Experiment", "default", name) for name in NAMES]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what SQLite answers, read only."""
        with sqlite3.connect(f"file:{self.state}/state.db?mode=ro", uri=True) as connection:
            return connection.execute(query).fetchall()

    def settle(self) -> None:
        """Run until everything is settled; nothing is hurt any more."""
        code, output = self.call(*self.run_words())
        assert code == 0, output

    def until(self, what: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
        """Return the first true answer; the processes are looked at before each question."""

        def looked() -> Any:
            self.processes.look()
            return what()

        return eventually(looked, seconds)

    def worker_at_work(self) -> Process:
        """Wait for a worker that has begun a job; return it."""

        def found() -> Process | None:
            holders = self.holders()
            workers = (p for p in self.processes.alive("worker") if p.begun)
            return next((p for p in workers if process_name(p.pid) in holders), None)

        worker: Process = self.until(found)
        return worker

    def kill_everything(self) -> None:
        """End all that the server forked and that still runs, however it feels about it."""
        self.processes.look()
        for process in self.processes.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self.until(lambda: not self.processes.alive())

    def holders(self) -> set[str]:
        """Return the names of the workers that hold a running job."""
        try:
            return {n for (n,) in self.rows("select worker from jobs where state = 'running'") if n}
        except sqlite3.OperationalError:
            return set()  # there is no database yet


def write(place: Place, variant: str) -> None:
    """Write both specs: the first in this variant, the second always the same."""
    more = place.folder / "texts" / "more.txt"
    place.write("second", **VARIANTS["a stricter gate"])
    place.write("tiny", **({"steering": STEERING} | _changes(variant)))
    if not more.exists():
        more.write_text((place.folder / "texts" / "target.txt").read_text() + "paris in summer\n")


def _changes(variant: str) -> dict[str, Any]:
    if variant.startswith(FRESH):
        return {"steering": STEERING | {"strengths": [float(variant.removeprefix(FRESH))]}}
    return VARIANTS[variant]
