"""What any executor does. A new one passes this suite, wherever its workers live.

Subclass ``ExecutorConformance`` as ``Test…`` and say how its workers are made to end a job and to
die; ``test_executors.py`` does so for processes of this machine and for the simulated ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from loopscope.controller.jobs.executor import Executor
from loopscope.controller.jobs.scheduling import Place
from loopscope.specs.actions import CODE_REVISIONS, Action
from loopscope.specs.keys import Key
from loopscope.state.db import jobs
from loopscope.state.folder import StateFolder
from loopscope.state.orders import Order
from loopscope.state.workers import worker_lives
from tests.simulated import new_state

NOW = 1_000_000.0


class ExecutorConformance(ABC):
    """The suite. ``self.executor`` has two slots, of which no worker runs when a test starts."""

    state: StateFolder
    code = ""
    """The sources that its workers are made of."""

    @abstractmethod
    def made(self, slots: int) -> Executor:
        """Return a new executor for ``self.state`` with this many slots on ``cpu``."""

    @abstractmethod
    def end(self, worker: str, job: int) -> None:
        """Let a worker come to the end of its job, and live on."""

    @abstractmethod
    def die(self, worker: str) -> None:
        """Let a worker die without a word."""

    @abstractmethod
    def comes_true(self, what: object) -> None:
        """Wait, for as long as is reasonable, until a callable returns something true."""

    @pytest.fixture(autouse=True)
    def _make(self, tmp_path: Path):
        self.state = new_state(tmp_path / "state")
        self.executor = self.made(2)
        yield
        self.executor.stop()

    # -- what the tests do -------------------------------------------------------------------

    def job(self, worker: str) -> Order:
        """Return the order of a new job that the worker claimed."""
        with self.state.database.write() as connection:
            number = len(jobs.listed(connection, ended=True))
            action = Action("capture", {"number": number}, {})
            key = Key("Capture", "default", f"capture-{number}")
            job, _ = jobs.enqueue(connection, action, key, 1, now=NOW)
            token = jobs.claim(connection, job, worker, 30.0, now=NOW).token
        return Order(job, token, "capture", CODE_REVISIONS["capture"], self.code)

    def started(self, model: str | None = None) -> tuple[str, int]:
        """Return a worker with the job that it was given."""
        worker = self.executor.free_worker(self.executor.places()[0])
        assert worker is not None
        order = self.job(worker)
        self.executor.start(worker, order, model)
        return worker, order.job

    def ended(self, worker: str, job: int) -> None:
        """Let a worker end its job, and be heard."""
        self.end(worker, job)
        heard: list[int] = []
        self.comes_true(lambda: heard.extend(self.executor.finished()) or heard)
        assert heard == [job]

    # -- placing ------------------------------------------------------------------------------

    def test_at_first_there_are_empty_slots_and_nothing_else(self):
        for _ in range(2):
            assert self.executor.places() == (Place("cpu"), Place("cpu"))
        assert self.executor.finished() == []

    def test_a_worker_with_a_job_takes_a_slot_and_all_of_them_leave_none(self):
        first, _ = self.started()
        assert self.executor.places() == (Place("cpu"),)
        second, _ = self.started()
        assert first != second and self.executor.places() == ()

    def test_there_is_no_worker_in_a_place_that_is_not_there(self):
        assert self.executor.free_worker(Place("cuda:7")) is None
        assert self.executor.free_worker(Place("cpu", "nobody")) is None
        self.started(), self.started()
        assert self.executor.free_worker(Place("cpu")) is None

    def test_a_job_that_ended_is_heard_of_once(self):
        worker, job = self.started()
        assert self.executor.finished() == []
        self.ended(worker, job)
        assert self.executor.finished() == []

    def test_a_worker_stays_warm_with_the_model_of_its_last_job_that_needed_one(self):
        worker, job = self.started(model="gemma")
        self.ended(worker, job)
        warm = Place("cpu", worker, "gemma")
        assert warm in self.executor.places() and len(self.executor.places()) == 2
        assert self.executor.free_worker(warm) == worker
        order = self.job(worker)
        self.executor.start(worker, order)
        assert warm not in self.executor.places()
        self.ended(worker, order.job)
        assert warm in self.executor.places()

    def test_without_a_limit_time_is_never_up(self):
        worker, job = self.started()
        self.ended(worker, job)
        assert not self.executor.time_is_up() and self.executor.places()

    # -- liveness -----------------------------------------------------------------------------

    def test_a_worker_is_alive_at_work_and_idle_also_for_those_who_look_from_outside(self):
        worker, job = self.started()
        assert self.executor.is_alive(worker) and worker_lives(worker) is not False
        self.ended(worker, job)
        assert self.executor.is_alive(worker) and worker_lives(worker) is not False

    def test_a_worker_that_died_is_not_alive_and_its_slot_is_free_once_it_is_cleared(self):
        worker, _ = self.started()
        self.die(worker)
        self.comes_true(lambda: not self.executor.is_alive(worker))
        assert worker_lives(worker) is not True
        for _ in range(2):
            self.executor.kill(worker)
        assert self.executor.places() == (Place("cpu"), Place("cpu"))

    def test_nobody_lives_who_was_never_there(self):
        for name in ("", "nobody", "1@0.00"):
            assert not self.executor.is_alive(name)
            assert self.executor.how_it_ended(name) == ""
            self.executor.kill(name)

    def test_how_a_worker_ended_completes_a_sentence_or_is_not_known(self):
        worker, _ = self.started()
        self.die(worker)
        self.comes_true(lambda: not self.executor.is_alive(worker))
        how = self.executor.how_it_ended(worker)
        assert how == "" or (how[0].islower() and how[-1] not in ".!\n")

    # -- ending -------------------------------------------------------------------------------

    def test_a_killed_worker_is_gone_its_slot_free_and_its_successor_another_one(self):
        worker, _ = self.started()
        self.executor.kill(worker)
        assert not self.executor.is_alive(worker)
        assert self.executor.places() == (Place("cpu"), Place("cpu"))
        assert self.started()[0] != worker

    def test_one_that_is_killed_takes_no_other_along(self):
        (first, _), (second, job) = self.started(), self.started()
        self.executor.kill(first)
        self.executor.finished()
        assert self.executor.is_alive(second)
        self.ended(second, job)

    def test_an_order_to_a_worker_that_died_just_now_is_lost_to_its_lease_without_an_error(self):
        worker = self.executor.free_worker(Place("cpu"))
        assert worker is not None
        order = self.job(worker)
        self.die(worker)
        self.executor.start(worker, order)
        self.comes_true(lambda: not self.executor.is_alive(worker))

    def test_after_a_stop_nobody_works(self):
        workers = [self.started()[0] for _ in range(2)]
        assert sorted(self.executor.stop()) == sorted(workers)
        assert not any(self.executor.is_alive(worker) for worker in workers)
