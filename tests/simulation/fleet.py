"""Workers of simulated controllers: they outlive their controller, pause, die and come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from loopscope.controller.jobs.scheduling import Place
from loopscope.specs.actions import CODE_REVISIONS, Stage
from loopscope.state.db.jobs import Fenced
from loopscope.state.folder import StateFolder
from loopscope.state.orders import Order
from tests.fake_worker import FakeWorker
from tests.simulated import VirtualClock


@dataclass
class Installed:
    """The code on the disk; a process keeps a copy of what it was when it started."""

    revisions: dict[Stage, int] = field(default_factory=lambda: dict(CODE_REVISIONS))
    sources: str = "as released"

    def copy(self) -> Installed:
        return replace(self, revisions=dict(self.revisions))

    def of_stage(self, stage: str) -> str:
        """What ``SourceCode`` would say."""
        return f"{stage} {self.sources} {sorted(self.revisions.items())}"

    def loaded(self) -> AbstractContextManager[Any]:
        """Let what runs in this context be of this code."""
        return mock.patch.dict(CODE_REVISIONS, self.revisions)


@dataclass
class Hand:
    """A worker process and the job that it holds, if any."""

    name: str
    code: Installed
    alive: bool = True
    paused: bool = False
    acting: bool = False
    """Whether it is in the middle of a piece of work while others act."""
    died: bool = False
    """Whether it is dead for another reason than that its controller killed it."""
    worker: FakeWorker | None = None
    steps: Iterator[str] = field(default_factory=lambda: iter(()))
    model: str | None = None
    heard_at: float = 0.0
    """When it last extended its lease; time in which everything was stopped does not count."""
    stops: int = 0
    """How often everything was stopped since then."""

    def die(self) -> None:
        self.died = self.died or self.alive
        self.alive = False

    @property
    def busy(self) -> bool:
        return self.alive and self.worker is not None

    @property
    def what(self) -> str:
        job = f" job {self.worker.job_id}" if self.worker else ""
        return f"{self.name}{job}"


@dataclass
class Fleet:
    """Implements ``loopscope.controller.jobs.executor.Executor`` for one controller's life."""

    state: StateFolder
    clock: VirtualClock
    everybody: dict[str, Hand]
    holders: dict[int, Hand]
    """Who was handed which fencing token."""
    installed: Installed
    gone: set[str]
    """Folders that are not there any more."""
    slots: int = 1
    lease_seconds: float = 30.0
    failure: tuple[str, bool] | None = None
    """How the next job that is handed out ends, instead of publishing."""
    seals: bool = False
    """Whether workers seal shards and make room between them."""
    mine: list[Hand] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    def places(self) -> tuple[Place, ...]:
        self._reap()
        idle = [Place("cpu", hand.name, hand.model) for hand in self.mine if hand.worker is None]
        return (*idle, *[Place("cpu")] * max(0, self.slots - len(self.mine)))

    def refusal(self, memory_bytes: int) -> str | None:
        return None

    def free_worker(self, place: Place, memory_bytes: int = 0) -> str | None:
        if place not in self.places():
            return None
        if place.worker is not None:
            return place.worker
        hand = Hand(f"worker-{len(self.everybody) + 1}", self.installed.copy())
        self.mine.append(hand)
        self.everybody[hand.name] = hand
        return hand.name

    def start(self, worker: str, order: Order, model: str | None = None) -> None:
        hand = self.everybody[worker]
        hand.model = model or hand.model
        failure, self.failure = self.failure, None
        hand.worker = FakeWorker(
            self.state, self.clock, order.job, order.token, self.lease_seconds, failure,
            gone=self.gone, order=order, code=hand.code.of_stage(order.stage), seals=self.seals,
        )  # fmt: skip
        hand.steps = hand.worker.steps()
        hand.heard_at, hand.stops = self.clock.elapsed(), 0
        self.holders[order.token] = hand

    def finished(self) -> list[int]:
        self._reap()
        ended, self.ended = self.ended, []
        return ended

    def time_is_up(self) -> bool:
        return False

    def is_alive(self, worker: str) -> bool:
        """A process is looked up on the machine, whoever started it."""
        return worker in self.everybody and self.everybody[worker].alive

    def how_it_ended(self, worker: str) -> str:
        return ""

    def kill(self, worker: str) -> None:
        """Only a worker of one's own can be killed; the lease and the token stop the others."""
        for hand in self.mine:
            if hand.name == worker:
                hand.alive = False

    def stop(self) -> list[str]:
        for hand in self.mine:
            hand.die()
        return [hand.name for hand in self.mine]

    def _reap(self) -> None:
        for hand in [hand for hand in self.mine if not hand.alive]:
            self.mine.remove(hand)
            if hand.worker is not None:
                self.ended.append(hand.worker.job_id)

    # -- what the simulation makes a worker do -----------------------------------

    def go_on(self, hand: Hand) -> str:
        """Do the worker's next step; returns what it did, or how the job ended."""
        assert hand.worker is not None
        worker = hand.worker
        done = next(hand.steps, None)
        if done is not None:
            return done
        hand.worker = None
        if worker.outcome == "refused":
            hand.die()  # by itself; a word that could not be written costs it its lease
        self.ended.append(worker.job_id)
        return worker.outcome

    def beat(self, hand: Hand) -> None:
        """Extend the lease as the worker's thread does; a worker that is fenced stops."""
        assert hand.worker is not None
        worker = hand.worker
        try:
            worker.heartbeat()
        except Fenced:
            self.ended.append(worker.job_id)
            hand.worker = None
        else:
            hand.heard_at, hand.stops = self.clock.elapsed(), 0
