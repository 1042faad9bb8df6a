"""The runner of one job: heartbeat, stage, seal, publish. Every write carries the fencing token."""

from __future__ import annotations

import importlib
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType

import structlog
import torch

from loopscope.state import failpoints
from loopscope.state.artifacts.publication import publish, verified_folder
from loopscope.state.artifacts.store import Corrupt, KeptShards
from loopscope.state.db import jobs, preemptions, shares
from loopscope.state.db.connection import Connection
from loopscope.state.db.jobs import Fenced
from loopscope.state.failures import (
    PASSING,
    Failure,
    JobStopped,
    MadeRoom,
    TerminalFailure,
    TransientFailure,
)
from loopscope.state.folder import StateFolder
from loopscope.state.records import JobRecord
from loopscope.state.retry_policy import RetryPolicy
from loopscope.state.share import Share
from loopscope.state.source_code import CodeChanged, source_at_start
from loopscope.worker.companions import pending_companions
from loopscope.worker.context import StageContext
from loopscope.worker.failing import failure_of, record_failure
from loopscope.worker.lease import Lease
from loopscope.worker.makers import kind_of, makers_of, shards_of
from loopscope.worker.manifest import manifest_of
from loopscope.worker.memory import ran_out_of_memory
from loopscope.worker.sharing import share_of
from loopscope.worker.warm import WarmInputs

log = structlog.get_logger("worker")

WRITE_AGAIN_SECONDS = 1.0

OUT_OF_MEMORY = "OutOfMemory"
MEMORY_WORDS_MAX = 300
MEMORY_ADVICE = (
    "half the batch did not fit either; free memory, or use fewer or shorter prompts, a smaller "
    "dictionary or, on a GPU, `dtype: bfloat16`; then `loopscope retry`"
)

ShareRun = Callable[[Mapping[str, object], StageContext], None]
"""``run`` of a stage's ``sharing``: payload and surroundings in, sealed shards out."""
StageRun = Callable[[Mapping[str, object], StageContext, Path], Mapping[str, object]]
"""``run`` of a stage: payload, surroundings and folder in, metrics out.

A stage declares its payload as a type (``loopscope.specs.payloads``). Here, where the JSON of the
job's row is handed over, it is not checked: the claim wrote what the reconcilers order now, and the
order named the code revision that both sides hold.
"""


@dataclass
class Runner:
    """A warm worker: keeps models and dictionaries between jobs."""

    state: StateFolder
    device: str
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    warm: WarmInputs = field(default_factory=WarmInputs)
    memory_ran_out: bool = False
    """Set for good: a process that once ran out of memory is not worth keeping."""

    @staticmethod
    def open(state: StateFolder, device: str) -> Runner:
        """Set torch's thread count on purpose; no gradients in this process."""
        torch.set_num_threads(torch_threads())
        torch.set_grad_enabled(False)
        return Runner(state, device)

    def run(self, job_id: int, token: int, lease: Lease) -> None:
        """Run a claimed job to one of its ends. Never raises for what a job can cause.

        Raises CodeChanged when this process cannot go on, and leaves the job as it is.
        """
        job = self._claimed(job_id)
        if job is None or job.state != "running" or job.token != token:
            log.info("job is no longer ours", job=job_id)
            return
        try:
            lease.check()
            check_device(self.device)
            self._run_stage(job, lease)
        except MadeRoom as asked:
            log.info("job makes room", job=job_id, why=str(asked))
            self._give_back(job_id, partial(preemptions.make_room, job=job, now=time.time()))
        except JobStopped as stopped:
            log.info("job stopped", job=job_id, why=str(stopped))
            self.release(job_id, token)
        except Fenced as fenced:
            log.info("job taken away", job=job_id, why=str(fenced))
        except Exception as error:
            failure = self._failure_of(job, error)
            if isinstance(failure, CodeChanged):
                raise failure from None
            self._record_failure(job, failure, lease)
        finally:
            self.state.artifacts.let_go()

    def release(self, job_id: int, token: int) -> None:
        """Give a job's lease back: pending again, no attempt lost."""
        self._give_back(job_id, partial(jobs.release, job_id=job_id, token=token))

    def _give_back(self, job_id: int, write: Callable[[Connection], None]) -> None:
        try:
            failpoints.reach("job-release")
            with self.state.database.write() as connection:
                write(connection)
        except Fenced:
            log.info("job taken away", job=job_id)
        except PASSING as trouble:
            log.warning("lease not given back; it will be taken back", why=str(trouble))

    def _claimed(self, job_id: int) -> JobRecord | None:
        try:
            with self.state.database.read() as connection:
                return jobs.get(connection, job_id)
        except PASSING as trouble:
            log.warning("job not read; its lease will be taken back", why=str(trouble))
            return None

    def _run_stage(self, job: JobRecord, lease: Lease) -> None:
        began = time.monotonic()
        log.info("job starts", job=job.id, stage=job.stage, digest=job.digest[:12])
        if (share := share_of(self.state, job, kind_of(self.device))) is not None:
            self._make_share(job, share, lease)
            return
        staging = self.state.artifacts.staging_folder(job.digest, job.token)
        stage: StageRun = _module(f"{job.stage}.stage").run
        kept = self.state.artifacts.shards(job.digest)
        context = self._context(job, lease, kept)
        metrics = stage(job.payload, context, staging)
        seconds = time.monotonic() - began
        manifest = manifest_of(
            job,
            metrics,
            self.device,
            seconds,
            created_at=time.time(),
            batch_divisor=context.batch_divisor,
            code=source_at_start().of_stage(job.stage),
            makers=makers_of(kept),
        )
        record = self.state.artifacts.seal(staging, manifest)
        failpoints.reach("artifact-sealed")
        publish(self.state, job, staging, record, now=time.time())
        log.info("job succeeded", job=job.id, stage=job.stage, seconds=round(seconds, 2))

    def _make_share(self, job: JobRecord, share: Share, lease: Lease) -> None:
        """Seal shards of another job's action; there is nothing to publish."""
        stage: ShareRun = _module(f"{job.stage}.sharing").run
        kept = self.state.artifacts.shards(share.digest)
        stage(job.payload, self._context(job, lease, kept, share))
        with self.state.database.write() as connection:
            jobs.succeed(connection, job.id, job.token, now=time.time())
        log.info("job succeeded", job=job.id, stage=job.stage, share_of=share.of_job)

    def _context(
        self, job: JobRecord, lease: Lease, kept: KeptShards, share: Share | None = None
    ) -> StageContext:
        """Return the surroundings of a job whose shards are ``kept`` there."""
        own = shards_of(kept, self.device, partial(self._note_advance, job))
        lease.may_finish, lease.overruns = own.ends_within, own.overruns
        own.before_next = lease.make_room
        own.before_seal = partial(self._check_ours, job)
        return StageContext(
            device=self.device,
            model=lambda ref: self.warm.model(ref, self.device, lease.progress),
            dictionary=lambda ref: self.warm.dictionary(ref, lease.progress),
            artifact=self._verified_artifact,
            shards=own,
            progress=lease.progress,
            batch_divisor=batch_divisor(job),
            companions=partial(pending_companions, self.state, job, device=self.device),
            share=share,
        )

    def _check_ours(self, job: JobRecord) -> None:
        """Raise Fenced where the job is no longer ours: what comes late does not count."""
        if self._was_taken(job):
            raise Fenced(f"job {job.id} does not run under token {job.token} any more")

    def _note_advance(self, job: JobRecord) -> None:
        """Forgive losses to a job that seals shards: it does more than end its workers."""
        if job.losses > 0:
            with self.state.database.write() as connection:
                jobs.forgive_losses(connection, job.id, job.token)

    def _verified_artifact(self, stage: str, digest: str) -> Path:
        try:
            return verified_folder(self.state, stage, digest)
        except Corrupt as damage:
            raise TransientFailure("InputDamaged", f"{damage}; it is being made again") from None

    def _failure_of(self, job: JobRecord, error: Exception) -> Failure:
        if ran_out_of_memory(error):
            self.memory_ran_out = True
            return _out_of_memory(job, error, is_share=self._is_share(job))
        failure = failure_of(error, self.state.artifacts.disk)
        if failure.reason == "UnexpectedError" and not self._was_taken(job):
            log.error("unexpected", job=job.id, trace=traceback.format_exc())
        return failure

    def _was_taken(self, job: JobRecord) -> bool:
        """Whether the job is no longer ours: its folder may be gone, which shows as any error."""
        try:
            with self.state.database.read() as connection:
                now = jobs.head(connection, job.id)
        except PASSING:
            return False
        return now is not None and (now.state, now.token) != ("running", job.token)

    def _is_share(self, job: JobRecord) -> bool:
        try:
            with self.state.database.read() as connection:
                return shares.get(connection, job.id) is not None
        except PASSING:
            return False

    def _record_failure(self, job: JobRecord, failure: Failure, lease: Lease) -> None:
        """Write down how the job failed, as often as it takes while the lease is ours."""
        reason, message = failure.reason, failure.message
        log.warning("job failed", job=job.id, stage=job.stage, reason=reason, message=message)
        while True:
            try:
                self._write_failure(job, failure)
                return
            except Fenced:
                log.info("job taken away", job=job.id)
                return
            except PASSING as trouble:
                log.warning("failure not written; trying again", job=job.id, why=str(trouble))
            try:
                lease.wait(WRITE_AGAIN_SECONDS)
            except (Fenced, JobStopped) as ended:
                log.info("failure not written", job=job.id, why=str(ended))
                return

    def _write_failure(self, job: JobRecord, failure: Failure) -> None:
        failpoints.reach("job-failure")
        with self.state.database.write() as connection:
            record_failure(connection, job, failure, now=time.time(), policy=self.policy)


def _module(name: str) -> ModuleType:
    """Return a module of the stages."""
    return importlib.import_module(f"loopscope.worker.stages.{name}")


def batch_divisor(job: JobRecord) -> int:
    """Return 2 for a job whose last try ran out of memory, else 1."""
    return 2 if job.reason == OUT_OF_MEMORY else 1


def _out_of_memory(job: JobRecord, error: Exception, *, is_share: bool) -> Failure:
    """Ask for one more try, with half the batch; it gets no third.

    A share gets no second: the last digits of half a batch are others, and whose job makes the
    artifact says in its manifest how it was made.
    """
    what = str(error).strip().split("\n")[0][:MEMORY_WORDS_MAX] or "no memory left"
    if is_share:
        return TerminalFailure(OUT_OF_MEMORY, f"{what}; the job that it helps makes its shards")
    if batch_divisor(job) == 1:
        message = f"{what}; it is tried once more with half the batch"
        return TransientFailure(OUT_OF_MEMORY, message)
    return TerminalFailure(OUT_OF_MEMORY, f"{what}; {MEMORY_ADVICE}")


def torch_can_use(device: str) -> bool:
    """Return whether torch can compute on ``device``."""
    number = int(device.partition(":")[2] or 0)
    return device == "cpu" or (torch.cuda.is_available() and number < torch.cuda.device_count())


def check_device(device: str) -> None:
    """Raise TerminalFailure when torch cannot compute on ``device``."""
    if not torch_can_use(device):
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
