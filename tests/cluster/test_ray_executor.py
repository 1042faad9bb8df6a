"""Actors of a Ray cluster pass the suite of executors, and what only they can be asked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from loopscope.controller.settings import Settings
from loopscope.state.db import leader
from tests.conformance.executor import ExecutorConformance
from tests.conformance.test_executors import OBEDIENT
from tests.integration.real import eventually


class TestRayActors(ExecutorConformance):
    @pytest.fixture(autouse=True)
    def _cluster(self, ray_cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        from loopscope.controller.jobs.on_ray import actors

        self.cluster, self.folder = ray_cluster, tmp_path
        monkeypatch.setattr(actors, "STOP_GRACE_SECONDS", -1.0)

    def made(self, slots: int) -> Any:
        from loopscope.controller.jobs.on_ray.making import actors_on

        with self.state.database.write() as connection:
            epoch = leader.number(connection)
        command = (sys.executable, "-S", "-c", OBEDIENT, str(self.folder))
        settings = Settings(slots=slots)
        return actors_on(self.cluster, self.state, settings, lambda: None, epoch, command=command)

    def end(self, worker: str, job: int) -> None:
        (self.folder / str(job)).touch()

    def process_of(self, worker: str) -> psutil.Process:
        slot = worker.split("/")[1].rpartition("-")[2]
        return self.processes()[int(slot) % 2]

    def die(self, worker: str) -> None:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if str(self.folder) in words and OBEDIENT in words:
                process.kill()

    def comes_true(self, what: Any) -> None:
        eventually(what)
