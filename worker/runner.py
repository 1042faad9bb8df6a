"""Runs one job: heartbeat, stage, seal, publish. Every write carries the fencing token."""

from __future__ import annotations

import importlib
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import torch

from state import failpoints, jobs
from state.artifacts import Corrupt
from state.failures import JobStopped, TerminalFailure, TransientFailure
from state.folder import StateFolder
from state.jobs import Fenced, RetryPolicy
from state.publication import publish, verified_folder
from state.records import JobRecord
from worker.context import StageContext
from worker.lease import Lease
from worker.manifest import manifest_of
from worker.shards import Shards
from worker.warm import WarmInputs

log = structlog.get_logger("worker")

StageRun = Callable[[dict[str, Any], StageContext, Path], dict[str, Any]]


@dataclass
class Runner:
    """A warm worker: keeps models and dictionaries between jobs."""

    state: StateFolder
    device: str
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    warm: WarmInputs = field(default_factory=WarmInputs)

    @staticmethod
    def open(state: StateFolder, device: str) -> Runner:
        """Set torch's thread count on purpose; no gradients in this process."""
        torch.set_num_threads(torch_threads())
        torch.set_grad_enabled(False)
        return Runner(state, device)

    def run(self, job_id: int, token: int, lease: Lease) -> None:
        """Run a claimed job to one of its ends. Never raises for what a job can cause."""
        with self.state.database.read() as connection:
            job = jobs.get(connection, job_id)
        if job is None or job.state != "running" or job.token != token:
            log.info("job is no longer ours", job=job_id)
            return
        try:
            lease.check()
            check_device(self.device)
            self._run_stage(job, lease)
        except JobStopped as stopped:
            log.info("job stopped", job=job_id, why=str(stopped))
            self.release(job_id, token)
        except Fenced as fenced:
            log.info("job taken away", job=job_id, why=str(fenced))
        except TransientFailure as failure:
            self._fail(job, failure.reason, failure.message, transient=True)
        except TerminalFailure as failure:
            self._fail(job, failure.reason, failure.message, transient=False)
        except (MemoryError, torch.OutOfMemoryError) as error:
            self._fail(job, "OutOfMemory", str(error) or "no memory left", transient=True)
        except OSError as error:
            self._fail(job, _disk_reason(error), str(error), transient=True)
        except Exception as error:
            log.error("unexpected", job=job_id, trace=traceback.format_exc())
            message = f"{type(error).__name__}: {error} (see the worker's log)"
            self._fail(job, "UnexpectedError", message, transient=False)

    def release(self, job_id: int, token: int) -> None:
        """Give a job's lease back: pending again, no attempt lost."""
        try:
            with self.state.database.write() as connection:
                jobs.release(connection, job_id, token)
        except Fenced:
            log.info("job taken away", job=job_id)

    def _run_stage(self, job: JobRecord, lease: Lease) -> None:
        started_at = time.time()
        log.info("job starts", job=job.id, stage=job.stage, digest=job.digest[:12])
        staging = self.state.artifacts.staging_folder(job.digest, job.token)
        stage: StageRun = importlib.import_module(f"worker.stages.{job.stage}").run
        context = StageContext(
            device=self.device,
            model=lambda ref: self.warm.model(ref, self.device, lease.progress),
            dictionary=self.warm.dictionary,
            artifact=self._verified_artifact,
            shards=Shards(self.state.artifacts.work_folder(job.digest)),
            progress=lease.progress,
        )
        metrics = stage(job.payload, context, staging)
        seconds = time.time() - started_at
        manifest = manifest_of(job, metrics, self.device, seconds, created_at=time.time())
        record = self.state.artifacts.seal(staging, manifest)
        failpoints.reach("artifact-sealed")
        publish(self.state, job, staging, record, now=time.time())
        log.info("job succeeded", job=job.id, stage=job.stage, seconds=round(seconds, 2))

    def _verified_artifact(self, stage: str, digest: str) -> Path:
        try:
            return verified_folder(self.state, stage, digest)
        except (Corrupt, OSError) as damage:
            raise TransientFailure("InputDamaged", f"{damage}; it is being made again") from None

    def _fail(self, job: JobRecord, reason: str, message: str, *, transient: bool) -> None:
        log.warning("job failed", job=job.id, stage=job.stage, reason=reason, message=message)
        try:
            with self.state.database.write() as connection:
                jobs.fail(
                    connection,
                    job.id,
                    job.token,
                    reason,
                    message,
                    transient=transient,
                    now=time.time(),
                    policy=self.policy,
                )
        except Fenced:
            log.info("job taken away", job=job.id)


def check_device(device: str) -> None:
    """Raise TerminalFailure when torch cannot compute on ``device``."""
    if device == "cpu":
        return
    available = torch.cuda.is_available() and int(device.split(":")[1]) < torch.cuda.device_count()
    if not available:
        raise TerminalFailure(
            "DeviceUnavailable",
            f"--device {device} was asked for, but torch {torch.__version__} finds "
            f"{torch.cuda.device_count()} CUDA devices; run with --device cpu",
        )


def torch_threads() -> int:
    """Return LOOPSCOPE_TORCH_THREADS, or the cores this process may use, at most 8."""
    given = os.environ.get("LOOPSCOPE_TORCH_THREADS", "")
    return (
        int(given) if given.isdigit() and int(given) > 0 else min(len(os.sched_getaffinity(0)), 8)
    )


def _disk_reason(error: OSError) -> str:
    import errno

    return "DiskFull" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "InputOutputError"
