"""Jobs that make room for others: who may ask whom, and what nobody loses by it.

Every tenth seed plays it, so that the stories of the others stay as they are. Rights are worked out
from who wants a job; nothing of the scheduler is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from loopscope.specs.keys import PRIORITY_ANNOTATION, Key
from loopscope.state.db import jobs, objects, preemptions
from loopscope.state.db.connection import Connection
from loopscope.state.invariants import Violation
from loopscope.state.records import JobHead
from tests.simulation.world import HEARTBEAT_SECONDS, World

CLASS_BY_NAME = {"cap": "low", "cap-too": "urgent", "coarse": "high", "fine": "low", "map": "high"}
VALUES = {"urgent": 10, "high": 6, "normal": 0, "low": -6}
MAY_ASK = ("urgent", "high")
SETTINGS: dict[str, Any] = {
    "slots": 1,
    "priority_classes": VALUES,
    "preempting_classes": MAY_ASK,
}


def is_played_by(seed: int) -> bool:
    return seed % 10 == 8


def ask_for_room(world: World) -> str:
    """Somebody of a high class comes while a job of a low one runs, and time passes meanwhile."""
    said = []
    for name in ("cap", "cap-too"):
        key = Key("Capture", "default", name)
        spec = world.choices[key]()[world.rng.randrange(3)]
        said.append(f"apply {name} {world.apply(key, spec)}")
        for _ in range(world.rng.choice([2, 4])):
            for life in list(world.lives)[:1]:
                said.append(world.step(life) or "step")
            world.pass_time(1.0)
    world.pass_time(HEARTBEAT_SECONDS)
    for hand in world.busy_hands():
        while hand.busy and not hand.paused and not hand.acting and world.rng.random() < 0.9:
            said.append(f"{hand.what} {world.work(hand)}")
    return f"ask for room: {', '.join(said)}"


@dataclass
class Rights:
    """Watches each request and each job that makes room."""

    world: World
    _sealed_at_claim: dict[int, set[str]] = field(default_factory=dict)
    """By fencing token."""
    _sealed_when_given_back: dict[int, set[str]] = field(default_factory=dict)
    """By job, until it is claimed again."""

    def __post_init__(self) -> None:
        self.world.classes = CLASS_BY_NAME

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at every request, every return and every claim while the context lasts."""
        with ExitStack() as stack:
            for owner, name, watch in (
                (preemptions, "ask", self._asks),
                (preemptions, "make_room", self._makes_room),
                (jobs, "claim", self._claims),
            ):
                watched = watch(getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, watched))
            yield

    def _asks(self, ask: Any) -> Any:
        def watched(
            connection: Connection, job_id: int, token: int, by_job: int, *args: Any, **kwargs: Any
        ) -> Any:
            answer = ask(connection, job_id, token, by_job, *args, **kwargs)
            asked, by = jobs.head(connection, job_id), jobs.head(connection, by_job)
            assert asked is not None and by is not None  # it was asked
            right = max(
                [VALUES[c] for c in self._classes(connection, by) if c in MAY_ASK], default=-99
            )
            highest = max([VALUES[c] for c in self._classes(connection, asked)], default=0)
            if right <= highest:
                what = f"asks {asked.stage} job {asked.id} of value {highest} by value {right}"
                self._broke(by, what)
            self.world.counts["asked for room"] += 1
            return answer

        return watched

    def _makes_room(self, make_room: Any) -> Any:
        def watched(connection: Connection, job: JobHead, **kwargs: Any) -> Any:
            before = jobs.head(connection, job.id)
            answer = make_room(connection, job, **kwargs)
            after = jobs.head(connection, job.id)
            assert before is not None and after is not None  # it had the job
            kept = self._sealed(after)
            if not kept > self._sealed_at_claim.get(job.token, set()):
                self._broke(after, "makes room without having sealed a shard")
            same = ("attempts", "losses", "created_at")
            if after.state != "pending" or any(
                getattr(before, n) != getattr(after, n) for n in same
            ):
                self._broke(after, "pays for making room")
            self._sealed_when_given_back[job.id] = kept
            self.world.counts["made room"] += 1
            return answer

        return watched

    def _claims(self, claim: Any) -> Any:
        def watched(connection: Connection, *args: Any, **kwargs: Any) -> Any:
            job = claim(connection, *args, **kwargs)
            sealed = self._sealed(job)
            lost = self._sealed_when_given_back.pop(job.id, set()) - sealed
            if lost:
                self._broke(job, f"lost sealed shards: {', '.join(sorted(lost))}")
            self._sealed_at_claim[job.token] = sealed
            return job

        return watched

    def _classes(self, connection: Connection, job: JobHead) -> set[str]:
        """Return the classes of the objects that want a job: their own, or else their owners'."""
        found = set()
        for key in objects.wanting(connection, job.digest):
            record = objects.get(connection, key)
            assert record is not None  # it wants the job
            owner = objects.get(connection, record.owner) if record.owner is not None else None
            said = {**(owner.annotations if owner else {}), **record.annotations}
            found.add(said.get(PRIORITY_ANNOTATION, "normal"))
        return found

    def _sealed(self, job: JobHead) -> set[str]:
        return set(self.world.state.artifacts.shards(job.digest).names())

    def _broke(self, job: JobHead, what: str) -> None:
        self.world.broken.append(Violation("room", f"{job.stage} job {job.id}", what))
