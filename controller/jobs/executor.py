"""The port to workers: where jobs can be placed, and what becomes of the workers that run them.

The database stays the record: an executor that forgets everything loses no work. A worker has a
name that no other ever has, by which also those can look it up who did not start it
(``loopscope.state.workers``). Any executor must pass ``tests/conformance/executor.py``.
"""

from __future__ import annotations

from typing import Protocol

from loopscope.controller.jobs.scheduling import Place
from loopscope.state.orders import Order


class Executor(Protocol):
    """A way to place work."""

    def places(self) -> tuple[Place, ...]:
        """Return the idle workers, and the slots that are empty."""

    def refusal(self, memory_bytes: int) -> str | None:
        """Return what is missing for any worker to hold a job of this size, None if nothing is.

        As things stand, and whatever else runs. None for ever where jobs are just let run.
        """
        return None

    def free_worker(self, place: Place, memory_bytes: int = 0) -> str | None:
        """Return the worker of a place, starting one in an empty slot; None if there is none.

        Where memory is reserved, it has as much as this.
        """

    def start(self, worker: str, order: Order, model: str | None = None) -> None:
        """Hand a claimed job to a worker, which then holds the model that the job needs.

        A worker that died meanwhile loses the job to its lease, as does one that dies later.
        """

    def finished(self) -> list[int]:
        """Return the ids of the jobs that ended since the last call, each at most once."""

    def time_is_up(self) -> bool:
        """Whether a worker stopped because its time was too short for more; no other place is free.

        What the others do they may finish. False for ever where work has no time limit.
        """

    def is_alive(self, worker: str) -> bool:
        """Whether the named worker exists, also if another controller started it."""

    def how_it_ended(self, worker: str) -> str:
        """Return how a lost worker ended ("was killed …"), empty if unknown."""

    def kill(self, worker: str) -> None:
        """End a worker that hangs, with its job; of one that is gone, free the slot."""

    def stop(self) -> list[str]:
        """Let all workers stop after their batch, keeping sealed shards, and exit.

        Returns their names; none lives any more, whether it gave its job back or not.
        """
