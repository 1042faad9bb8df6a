"""One real worker process with one real job; the test is its controller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from safetensors.numpy import load

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state.db import jobs
from loopscope.state.orders import Order
from loopscope.state.records import JobRecord
from loopscope.state.source_code import source_at_start
from tests.integration.real import REPOSITORY, eventually
from tests.simulated import new_state
from tests.tiny_experiment import HOOK

KEY = Key("Capture", "default", "cap")
AND_WORK = "\nfrom loopscope.worker.__main__ import main\nmain()\n"

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A prelude imports NumPy before the worker blocks SIGTERM; a pool's threads would not block it."""


class RealWorker:
    """A capture job on a tiny model, and the worker process that a test starts for it.

    ``prelude`` is Python that runs in the worker's process before it starts to work.
    """

    def __init__(
        self, folder: Path, reference: dict[str, Any], prompts: int = 24, prelude: str = ""
    ) -> None:
        self.state = new_state(folder / "state")
        self.prelude = prelude
        self.log_path = folder / "worker.log"
        payload = {
            "model": reference,
            "hook": HOOK,
            "positions": "last",
            "maxTokens": 32,
            "calibrationText": ["the old town was quiet"],
            "prompts": [
                {
                    "id": f"p{i}",
                    "text": f"the food in old paris{' was' * (i % 3)}",
                    "condition": "target" if i % 2 else "neutral",
                }
                for i in range(prompts)
            ],
        }
        with self.state.database.write() as connection:
            action = Action("capture", {"prompts": prompts}, payload)
            self.job_id, _ = jobs.enqueue(connection, action, KEY, 1, now=1.0)
        self.digest = action.digest

    def start(self, *, progress_timeout_seconds: float = 600.0) -> subprocess.Popen[bytes]:
        """Claim the job for a new worker process, and hand it over."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", self.prelude + AND_WORK),
                    *("--state", str(self.state.path)),
                    *("--progress-timeout-seconds", str(progress_timeout_seconds)),
                    *("--lease-seconds", "3"),
                ],
                cwd=REPOSITORY,
                env={**os.environ, "LOOPSCOPE_TORCH_THREADS": "1", **ONE_THREAD},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        with self.state.database.write() as connection:
            job = jobs.claim(connection, self.job_id, "w", 600.0, now=time.time())
        self.send(self.order(job))
        return self.process

    @staticmethod
    def order(job: JobRecord) -> Order:
        code = source_at_start().of_stage(job.stage)
        return Order(job.id, job.token, job.stage, job.code_revision, code)

    def send(self, order: Order) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order.to_line())
        self.process.stdin.flush()

    def disappear(self) -> None:
        """Do what the system does with the pipes of a controller that was killed."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def until_ended(self) -> int:
        """Wait for the job's end, or the worker's own; return the worker's exit status."""
        eventually(lambda: self.job().state != "running" or self.process.poll() is not None)
        self.disappear()
        return self.process.wait(120)

    def until(self, state: str) -> None:
        """Wait until the worker is ``at work`` etc.: what its prelude wrote into the log."""
        eventually(lambda: state in self.log() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def job(self) -> JobRecord:
        with self.state.database.read() as connection:
            job = jobs.get(connection, self.job_id)
        assert job is not None
        return job

    def family(self) -> list[psutil.Process]:
        """Return the worker and its children, to be looked at when it may be gone."""
        worker = psutil.Process(self.process.pid)
        return [worker, *worker.children(recursive=True)]

    def shards(self) -> list[str]:
        folder = self.state.artifacts.work_folder(self.digest)
        return sorted(path.name for path in folder.glob("*.safetensors"))

    def contents(self) -> dict[str, bytes]:
        folder = self.state.artifacts.folder("capture", self.digest)
        return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"}

    def residual(self) -> dict[str, Any]:
        return load(self.contents()["residual.safetensors"])

    def end(self) -> None:
        if hasattr(self, "process") and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
