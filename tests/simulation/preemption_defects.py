"""Defects of making room: who is asked, when room is made, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from loopscope.controller.jobs import making_room
from loopscope.state.db import jobs, preemptions
from loopscope.state.db.connection import Connection
from loopscope.state.records import JobHead
from loopscope.state.retry_policy import RetryPolicy
from loopscope.worker.shards import Shards
from tests.simulation.defects import Patch


def any_class_makes_room() -> list[Patch]:
    def requests(snapshot: Any) -> Any:
        low = tuple(replace(one, priority=("low", -1000)) for one in snapshot.running)
        return real(replace(snapshot, running=low))

    real = making_room.requests
    return [(making_room, "requests", requests)]


def room_before_a_shard() -> list[Patch]:
    """A try makes room without having got on."""

    def sealed(self: Shards, name: str) -> Any:
        self._has_sealed = True
        return real(self, name)

    real = Shards.sealed
    return [(Shards, "sealed", sealed)]


def room_counts_as_a_failure() -> list[Patch]:
    def make_room(connection: Connection, job: JobHead, *, now: float) -> None:
        jobs.fail(
            connection, job.id, job.token, "Preempted", "made room",
            transient=True, now=now, policy=RetryPolicy(),
        )  # fmt: skip

    return [(preemptions, "make_room", make_room)]
