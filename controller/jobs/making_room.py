"""Preemption in the loop: asks running jobs to make room, and takes back what is not needed.

A slot that a job left a moment ago is not seen as free yet. So only who was found in two looks is
asked. What was asked is taken back at once when it is needed no more, or when no class may ask any
more: the limits file was edited while a request stood.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog

from loopscope.controller.jobs.leases import LOOK_SECONDS
from loopscope.controller.jobs.preemption import Request, requests
from loopscope.controller.jobs.scheduling import QueueSnapshot
from loopscope.controller.jobs.starting import Starter
from loopscope.specs.keys import Key
from loopscope.state.db import jobs, preemptions
from loopscope.state.db.knowledge import knowledge

log = structlog.get_logger("controller")


@dataclass
class MakingRoom:
    """Looks once a second who is to make room for whom."""

    starter: Starter
    _next_look_at: float = 0.0
    _found_before: frozenset[Request] = field(default_factory=frozenset)

    def look(self) -> Iterator[list[Key]]:
        """Ask, and take back; yield the objects to look at again."""
        clock, database = self.starter.clock, self.starter.state.database
        if clock.elapsed() < self._next_look_at:
            return
        self._next_look_at = clock.elapsed() + LOOK_SECONDS
        with database.read() as connection:
            if not self.starter.settings.preempting_classes and not preemptions.listed(connection):
                return
            queue = self.starter.queue(connection)
            new, needless = self._news(queue)
            if not new and not needless:
                return
            known = knowledge(connection)
        keys: list[Key] = []
        with database.write() as connection:
            if knowledge(connection) != known:
                return  # something was edited or started meanwhile: the next look tells
            preemptions.withdraw(connection, needless)
            for one in new:
                with contextlib.suppress(jobs.Fenced):  # it ended, or the other one started
                    keys += preemptions.ask(
                        connection, one.job_id, one.token, one.by_job, one.classes, now=clock.now()
                    )
                    log.info("job asked to make room", job=one.job_id, by=one.by_job)
        yield keys

    def _news(self, queue: QueueSnapshot) -> tuple[list[Request], set[int]]:
        """Return what is to be asked now, and the running jobs whose room nobody needs."""
        found = requests(queue)
        before, self._found_before = self._found_before, frozenset(found)
        wanted = {one.job_id for one in found}
        needless = {one.id for one in queue.running if one.id in queue.makes_room} - wanted
        said = queue.makes_room
        return [
            one for one in found if one in before and said.get(one.job_id) != one.by_job
        ], needless
