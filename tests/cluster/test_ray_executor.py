"""Actors of a Ray cluster pass the suite of executors, and hold their place between controllers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from loopscope.controller.jobs.scheduling import Place
from loopscope.controller.settings import Settings
from loopscope.state.workers import log_paths
from tests.conformance.executor import ExecutorConformance
from tests.conformance.test_executors import OBEDIENT
from tests.integration.real import eventually
from tests.ray_cluster import executor_on, workers_in


class TestRayActors(ExecutorConformance):
    @pytest.fixture(autouse=True)
    def _cluster(self, ray_cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        from loopscope.controller.jobs.on_ray import actors

        self.cluster, self.folder = ray_cluster, tmp_path
        self.command = (sys.executable, "-S", "-c", OBEDIENT, str(tmp_path))
        monkeypatch.setattr(actors, "STOP_GRACE_SECONDS", -1.0)

    def made(self, slots: int, **settings: Any) -> Any:
        asked = Settings(slots=slots, **settings)
        return executor_on(self.cluster, self.state, asked, *self.command)

    def end(self, worker: str, job: int) -> None:
        (self.folder / str(job)).touch()

    def die(self, worker: str) -> None:
        (process,) = workers_in(self.folder)
        process.kill()

    def comes_true(self, what: Any) -> None:
        eventually(what)

    def test_what_a_worker_writes_stands_in_a_log_that_anybody_finds(self):
        _, job = self.started()
        said = f"at work on {job}"
        self.comes_true(lambda: any(said in p.read_text() for p in log_paths(self.state.logs)))

    def test_a_later_controller_finds_the_workers_with_jobs_and_models_and_no_other_is_started(
        self,
    ):
        worker, job = self.started(model="gemma")
        before, self.executor = self.executor, self.made(2)
        assert self.executor.is_alive(worker)
        assert self.executor.places() == (Place("cpu"),)
        self.ended(worker, job)
        assert Place("cpu", worker, "gemma") in self.executor.places()
        before.stop()

    def test_an_earlier_controller_that_wakes_up_ends_nothing_and_orders_nothing(self):
        worker, job = self.started()
        before, self.executor = self.executor, self.made(2)
        self.comes_true(lambda: not before.is_alive(worker))
        assert "another controller" in before.how_it_ended(worker)
        before.kill(worker)
        before.stop()
        assert self.executor.is_alive(worker)
        self.ended(worker, job)

    def test_what_is_left_of_a_worker_s_name_can_be_killed_by_any_controller(self):
        worker, _ = self.started()
        later = self.made(0)
        assert later.is_alive(worker)
        later.kill(worker)
        self.comes_true(lambda: not later.is_alive(worker) and not workers_in(self.folder))

    def test_an_actor_that_is_killed_takes_its_worker_along_within_the_grace_period(self):
        """Through the pipe: Ray leaves the children of a killed actor alone."""
        worker, _ = self.started()
        (process,) = workers_in(self.folder)
        process.parent().kill()
        self.comes_true(lambda: not self.executor.is_alive(worker))
        self.comes_true(lambda: not workers_in(self.folder))
        assert "lost with its actor" in self.executor.how_it_ended(worker)

    def test_a_job_that_needs_more_memory_than_a_warm_worker_has_gets_another_in_its_place(self):
        worker, job = self.started()
        self.ended(worker, job)
        larger = self.executor.free_worker(Place("cpu", worker), 2**20)
        assert larger not in (None, worker) and not self.executor.is_alive(worker)
        order = self.job(larger)
        self.executor.start(larger, order)
        self.ended(larger, order.job)
        assert self.executor.free_worker(Place("cpu", larger), 2**20) == larger

    def test_what_no_node_has_is_named_and_no_place_is_offered(self):
        asked = self.made(1, slots_by_device={"cuda:0": 1}, ray_resources={"fast_disk": 2})
        assert asked.places() == ()
        refusal = asked.refusal(10**15)
        for word in ("GPU 1", "fast_disk 2", "memory 1,000,000,000,000,000 bytes"):
            assert word in refusal
        assert self.executor.refusal(0) is None

    def test_a_worker_that_cannot_start_is_not_asked_for_at_full_speed(self):
        self.command = (sys.executable, "-c", "raise SystemExit(3)")
        broken = self.made(1)
        for _ in range(2):
            worker = broken.free_worker(Place("cpu"))
            self.comes_true(lambda worker=worker: worker is None or not broken.is_alive(worker))
        assert broken.places() == ()
