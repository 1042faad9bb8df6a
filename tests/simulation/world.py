"""One state folder with its controllers, workers, clock and disk, and all that may befall them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import random
import shutil
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from loopscope.controller.controller import Controller
from loopscope.controller.reconcile.resolution import Resolver
from loopscope.controller.settings import Settings
from loopscope.controller.sources.folder_source import FolderSource
from loopscope.specs.keys import PRIORITY_ANNOTATION, SOURCE_ANNOTATION, Key
from loopscope.state.db import events, jobs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.failures import Failure
from loopscope.state.folder import StateFolder, open_state
from loopscope.state.invariants import Violation
from tests.history import pruned_only_its_own
from tests.promises import write_was_entitled
from tests.simulated import Crash, Immediately, Inputs, VirtualClock, new_state
from tests.simulation import topologies
from tests.simulation.faulty_disk import FaultyDisk
from tests.simulation.fleet import Fleet, Hand, Installed
from tests.simulation.trouble import DiskTrouble, Trouble
from tests.simulation.ways import started_on_the_way_of_now

HEARTBEAT_SECONDS = 5.0
FROM_FILES = ("cap", "coarse", "france")
CLOCK_TROUBLE_SECONDS = (-7200.0, -45.0, -2.0, 2.0, 45.0, 7200.0)
"""By how much the date may be set, in the middle of anything."""
STOPPED_SECONDS = (1.0, 12.0, 40.0, 700.0)
"""For how long everything may be stopped, in the middle of anything."""
WORKERS_WRITES = ("heartbeat", "succeed", "fail", "postpone", "release")


class Watched(Controller):
    """A controller that also tells the world of errors that it survived by itself."""

    troubles: list[tuple[Key, Exception]]

    def _report_trouble(self, key: Key, error: Exception) -> None:
        self.troubles.append((key, error))
        super()._report_trouble(key, error)


@dataclass
class Life:
    """One controller process with its workers."""

    controller: Watched
    fleet: Fleet
    code: Installed
    resync_due_at: float = 0.0
    resynced: bool = False
    """Whether its last step was one in which a resync was due."""


def _do_not_wait(connection: sqlite3.Connection, _record: Any) -> None:
    """Kills are of processes, and the disk keeps what SQLite forced: nobody waits for it."""
    connection.execute("PRAGMA synchronous=OFF")


@dataclass
class World:
    """Everything that a seed plays with."""

    path: Path
    rng: random.Random
    settings: Settings
    choices: topologies.Choices
    clock: VirtualClock = field(default_factory=VirtualClock)
    inputs: Inputs = field(default_factory=Inputs)
    hands: dict[str, Hand] = field(default_factory=dict)
    holders: dict[int, Hand] = field(default_factory=dict)
    lives: list[Life] = field(default_factory=list)
    harmed: set[str] = field(default_factory=set)
    """Digests of artifacts that were damaged on the disk and not healed yet."""
    broken: list[Violation] = field(default_factory=list)
    """What was noticed while somebody acted: accepted writes of old tokens, wrong prunes."""
    identities: list[str] = field(default_factory=lambda: ["tiny"])
    """What the model was, over time: its files may change under its name."""
    installed: Installed = field(default_factory=Installed)
    releases: list[Installed] = field(default_factory=lambda: [Installed()])
    """What the code on the disk was, over time."""
    identity_unseen: bool = False
    """Whether an input changed since the last resync."""
    starts: dict[int, float] = field(default_factory=dict)
    """When each job start was claimed, by fencing token, on the clock that nobody can set."""
    dropped: bool = False
    """Whether a wake-up was lost since the last resync."""
    clock_rng: random.Random = field(default_factory=random.Random)
    """Chance of its own for the clock: the rest of a seed's story is the same without it."""
    first_uid: int = 1_000_000
    classes: Mapping[str, str] = field(default_factory=dict)
    """The priority class of each applied object by its name, where jobs make room for others."""
    trace: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.state: StateFolder = (
            open_state(self.path) if self.path.exists() else new_state(self.path)
        )
        event.listen(self.state.database.dialect.engine, "connect", _do_not_wait)
        # another process that looks on: with it, a kill leaves the -wal where it is
        self._someone = sqlite3.connect(self.path / "state.db")
        self._someone.execute("select 1 from counters").fetchone()
        self.disk = FaultyDisk(self.path)
        self.trouble = Trouble(self.state.database)

    @contextmanager
    def lasting(self) -> Iterator[World]:
        """Listen to the disk and the database, and take chance from the seed alone."""
        chance = random.getstate()
        random.seed(self.rng.random())
        numbers = itertools.count(self.first_uid)
        with ExitStack() as stack:
            stack.enter_context(self.disk.watched())
            stack.enter_context(self.trouble.installed())
            named = mock.patch.object(uuid, "uuid4", lambda: uuid.UUID(int=next(numbers)))
            stack.enter_context(named)
            for write in WORKERS_WRITES:
                watched = self._watched(getattr(jobs, write))
                stack.enter_context(mock.patch.object(jobs, write, watched))
            stack.enter_context(mock.patch.object(jobs, "claim", self._claims(jobs.claim)))
            try:
                yield self
            finally:
                random.setstate(chance)
                self.state.database.close()
                self._someone.close()

    def _watched(self, write: Callable[..., Any]) -> Callable[..., Any]:
        """Return a worker's write that notes when it went through without the right to."""

        def watched(
            connection: Connection, job_id: int, token: int, *args: Any, **kwargs: Any
        ) -> Any:
            before = jobs.get(connection, job_id)
            answer = write(connection, job_id, token, *args, **kwargs)
            self.broken += write_was_entitled(before, token)
            return answer

        return watched

    def _claims(self, claim: Callable[..., Any]) -> Callable[..., Any]:
        """Return a claim that notes when it was made, by a clock of the simulation's own.

        And when a job starts on an old way to its inputs.
        """

        def watched(connection: Connection, *args: Any, **kwargs: Any) -> Any:
            at = self.clock.elapsed()
            job = claim(connection, *args, **kwargs)
            self.starts[job.token] = at
            self.broken += started_on_the_way_of_now(connection, jobs.get(connection, job.id))
            return job

        return watched

    def say(self, words: str) -> None:
        self.trace.append(f"{self.clock.time:.1f} {words}")

    def trace_digest(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()

    # -- processes ---------------------------------------------------------------

    def start_controller(self) -> Life:
        """Start a controller; the leader lock is not asked, so that there may be two."""
        fleet = self._fleet()
        resolver = Resolver(Immediately(), lambda: None, self.inputs.resolve)
        controller = Watched(self.state, self.settings, self.clock, fleet, resolver)
        controller.troubles = []
        code = self.installed.copy()
        controller.starter.code = code  # type: ignore[assignment]
        life = Life(controller, fleet, code)
        self.lives.append(life)
        return life

    def lose_controller(self, life: Life, *, with_workers: bool) -> None:
        """A controller is gone; its workers die with it or go on for a while."""
        self.lives.remove(life)
        if with_workers:
            life.fleet.stop()

    def end_every_process(self) -> None:
        """Nobody lives any more, nobody cleans up."""
        for life in list(self.lives):
            self.lose_controller(life, with_workers=True)
        for hand in self.hands.values():
            hand.die()

    def attempt(self, act: Callable[[], Any]) -> str:
        """Let a process act; return how that ended: empty, ``crash`` or ``disk``."""
        try:
            with self.trouble.armed():
                act()
        except Crash:
            return "crash"
        except (DiskTrouble, OperationalError, Failure) as error:
            if self.trouble.sprung is None:
                raise
            self.say(f"ended by {type(error).__name__}")
            return "disk"
        return ""

    def step(self, life: Life) -> str:
        """Let a controller do all that is due; what ends it is told."""
        life.controller.troubles.clear()
        was_due, turns = self.clock.elapsed() >= life.resync_due_at, life.controller._resyncs
        before = turns.next_at
        with life.code.loaded():
            ended = self.attempt(life.controller.step)
        life.resynced = turns.next_at > before  # what forgets the log only asks for one
        if life.resynced:
            life.resync_due_at = self.clock.elapsed() + self.settings.resync_seconds
        elif was_due and not ended and self.trouble.sprung is None:
            late = self.clock.elapsed() - life.resync_due_at
            self.broken.append(Violation("resync", "controller", f"is late by {late:.1f} s"))
        if ended:
            self.lose_controller(life, with_workers=self.rng.random() < 0.4)
        return ended

    # -- workers -----------------------------------------------------------------

    def busy_hands(self) -> list[Hand]:
        return [hand for hand in self.hands.values() if hand.busy]

    def fleet_of(self, hand: Hand) -> Fleet:
        """Return who hears of a worker's ends; an orphan's are heard by nobody."""
        for life in self.lives:
            if hand in life.fleet.mine:
                return life.fleet
        return self._fleet()

    def _fleet(self) -> Fleet:
        slots, lease_seconds = self.settings.slots, self.settings.lease_seconds
        seals = bool(self.classes or self.settings.stage_parallelism)
        return Fleet(
            self.state, self.clock, self.hands, self.holders, self.installed, self.inputs.gone,
            slots, lease_seconds, seals=seals,
        )  # fmt: skip

    def is_orphan(self, hand: Hand) -> bool:
        return all(hand not in life.fleet.mine for life in self.lives)

    def work(self, hand: Hand) -> str:
        """Let a worker do its next piece; dies of a crash, returns what it did."""
        said: list[str] = []
        if hand.acting:
            return "is busy"
        hand.acting = True
        with hand.code.loaded():
            ended = self.attempt(lambda: said.append(self.fleet_of(hand).go_on(hand)))
        hand.acting = False
        if ended:
            hand.die()
            return ended
        return said[0]

    def release(self, hand: Hand) -> None:
        """An orphan notices that its controller is gone: gives its job back and exits."""
        assert hand.worker is not None
        worker = hand.worker
        self.attempt(worker.release)
        hand.worker = None
        hand.die()

    def pass_time(self, seconds: float) -> None:
        """Time passes, and those who work extend their leases while it does."""
        while seconds > 0:
            self.clock.advance(min(seconds, HEARTBEAT_SECONDS))
            seconds -= HEARTBEAT_SECONDS
            for hand in self.busy_hands():
                if hand.busy and not hand.paused:  # it may have ended while another one wrote
                    self.beat(hand)

    def trouble_the_clock(self) -> None:
        """Somebody sets the date, or everything stands still for a while (a paused machine)."""
        if self.clock_rng.random() < 0.6:
            seconds = self.clock_rng.choice(CLOCK_TROUBLE_SECONDS)
            self.clock.set(seconds)
            self.counts["clock set in the middle"] += 1
            self.say(f"  meanwhile the clock is set by {seconds} s")
            return
        seconds = self.clock_rng.choice(STOPPED_SECONDS)
        self.clock.advance(seconds)
        for hand in self.hands.values():
            hand.heard_at, hand.stops = hand.heard_at + seconds, hand.stops + 1
        self.counts["stopped in the middle"] += 1
        self.say(f"  meanwhile everything is stopped for {seconds} s")

    def beat(self, hand: Hand) -> None:
        """A worker extends its lease; one that cannot write goes on without."""
        if self.attempt(lambda: self.fleet_of(hand).beat(hand)) == "crash":
            hand.die()

    # -- people --------------------------------------------------------------------

    def apply(self, key: Key, spec: dict[str, Any], labels: dict[str, str] | None = None) -> str:
        """Apply a spec, some from a file of the watched folder, the others by hand."""
        source = {SOURCE_ANNOTATION: str(self._file_of(key))}
        annotations = source if key.name in FROM_FILES else None
        if key.name in self.classes:
            annotations = {**(annotations or {}), PRIORITY_ANNOTATION: self.classes[key.name]}

        def write() -> None:
            now = self.clock.now()
            with self.state.database.write() as connection:
                objects.apply(
                    connection, key, spec, now=now, labels=labels, annotations=annotations
                )

        return self.attempt(write)

    def prune(self, kept: set[Key]) -> str:
        """Prune as the watched folder does when only ``kept`` are left in its files."""
        shutil.rmtree(self._watched_folder, ignore_errors=True)
        self._watched_folder.mkdir()
        files = {key: self._file_of(key) for key in kept}
        for file in files.values():
            file.touch()
        source = FolderSource(self.state, self._watched_folder, self.path, lambda: None, self.clock)
        with self.state.database.read() as connection:
            before = objects.listed(connection)
        source._missed_since = dict.fromkeys((record.key for record in before), -math.inf)
        ended = self.attempt(lambda: source._prune(files, self.clock.now()))
        with self.state.database.read() as connection:
            after = objects.listed(connection)
        if self.trouble.sprung is None:
            self.broken += pruned_only_its_own(before, after, str(self._watched_folder), kept)
        return ended

    @property
    def _watched_folder(self) -> Path:
        return self.path.parent / "specs"

    def _file_of(self, key: Key) -> Path:
        return self._watched_folder / f"{key.name}.yaml"

    def delete(self, key: Key) -> str:
        def write() -> None:
            with self.state.database.write() as connection, contextlib.suppress(KeyError):
                objects.remove(connection, key, now=self.clock.now())

        return self.attempt(write)

    def retry_failed(self) -> int:
        """Do what ``loopscope retry`` does for every object whose job failed."""
        retried: list[int] = []
        self.attempt(lambda: retried.append(self._retry_failed()))
        return sum(retried)

    def _retry_failed(self) -> int:
        retried = 0
        with self.state.database.write() as connection:
            for record in objects.listed(connection):
                job = jobs.find_latest(connection, record.wanted_digest or "")
                if job is not None and job.state in ("failed", "cancelled"):
                    jobs.retry(connection, job.id, now=self.clock.now())
                    words = f"job {job.id} is retried"
                    now = self.clock.now()
                    events.record(connection, record.key, "Normal", "Retried", words, now=now)
                    retried += 1
        return retried

    def applied(self) -> dict[Key, dict[str, Any]]:
        """Return the specs that people applied, as they are stored."""
        with self.state.database.read() as connection:
            records = objects.listed(connection)
        return {record.key: record.spec for record in records if record.owner is None}

    def published_folders(self) -> list[Path]:
        root = self.state.artifacts.root
        return sorted(path for path in root.glob("[a-z]*/*") if path.is_dir())
