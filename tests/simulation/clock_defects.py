"""What the product is like where it trusts a clock that anybody may set, or what lasted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loopscope.controller.clock import Turns
from loopscope.controller.jobs import starting
from loopscope.controller.jobs.leases import LeaseWatch
from tests.simulation.defects import Patch


def leases_by_their_start() -> list[Patch]:
    """A lease is taken back although its worker renewed it meanwhile."""

    def expired(self: LeaseWatch, running: list[Any], executor: Any) -> list[Any]:
        now = self.clock.now()
        return [job for job in running if job.started_at is not None and job.started_at + 30 <= now]

    return [(LeaseWatch, "lost", expired)]


def leases_by_their_date() -> list[Patch]:
    """A lease is over when its date is, whatever the clock was set to meanwhile."""

    def expired(self: LeaseWatch, running: list[Any], executor: Any) -> list[Any]:
        now = self.clock.now()
        return [j for j in running if j.lease_expires_at <= now or not executor.is_alive(j.worker)]

    return [(LeaseWatch, "lost", expired)]


def starts_by_their_date() -> list[Patch]:
    """The starts of the last minute are told by their dates, whatever the clock was set to."""
    return [(starting.clock_repair, "is_due", lambda *_: False)]


def pauses_after_what_lasted() -> list[Patch]:
    """The pause after a resync follows from how long it lasted, also if it was stopped."""

    @contextmanager
    def turn(self: Turns) -> Iterator[None]:
        began = self.clock.elapsed()
        yield
        took = self.clock.elapsed() - began
        self.next_at = began + max(self.every_seconds, took / self.share)

    return [(Turns, "turn", turn)]
