"""A worker process without a process: it does a job in the order of ``loopscope.worker.runner``.

What it does between two yields happens at once; at each yield a test may pause or kill it, or
let others go first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from loopscope.specs.actions import CODE_REVISIONS, Stage
from loopscope.state import failpoints
from loopscope.state.artifacts.publication import publish, verified_folder
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.db import jobs, preemptions
from loopscope.state.db.jobs import Fenced
from loopscope.state.failures import (
    PASSING,
    Failure,
    MadeRoom,
    TerminalFailure,
    TransientFailure,
)
from loopscope.state.folder import StateFolder
from loopscope.state.orders import Order
from loopscope.state.records import JobRecord
from loopscope.state.retry_policy import RetryPolicy
from loopscope.state.share import Share
from loopscope.state.source_code import CodeChanged
from loopscope.worker.failing import failure_of, record_failure
from loopscope.worker.refusing import give_back
from loopscope.worker.shards import Shards
from loopscope.worker.sharing import share_of
from tests import fake_stages

SECONDS_PER_STAGE = 200.0
"""What every manifest says that the work took."""


class Clock(Protocol):
    def now(self) -> float: ...


@dataclass
class FakeWorker:
    """One worker with the job that it was handed."""

    state: StateFolder
    clock: Clock
    job_id: int
    token: int
    lease_seconds: float = 30.0
    failure: tuple[str, bool] | None = None
    """(reason, transient): how the job ends instead of publishing."""
    dies_of_errors: bool = False
    """Whether an error ends the process, so that its job is not heard of."""
    gone: Collection[str] = ()
    """Folders of models and dictionaries that are not there any more."""
    order: Order | None = None
    code: str = ""
    """What it was told, and by which code it works; without an order nobody compares."""
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    seals: bool = False
    """Whether each of its files is a shard, between two of which it makes room if it is asked."""
    kind: str = "AVX2-torch"
    """Of which kind of processor its shards are."""
    asked_by: str | None = None
    outcome: str = ""
    """How it ended: succeeded, failed, fenced, released, refused, made room; empty before."""

    def steps(self) -> Iterator[str]:
        """Work to the end; yields the name of what comes next."""
        job = self.job()
        if job is None or job.state != "running" or job.token != self.token:
            self.outcome = "fenced"
            return
        failure: Failure | None = None
        try:
            if self.order is not None:
                self.order.check(CODE_REVISIONS[_stage(job)], self.code)
            share = share_of(self.state, job, self.kind)
            if self.failure is not None:
                yield "fail"
                failure = self._told_to_fail(job)
            elif share is not None:
                yield from self._make_share(job, share)
                self.outcome = "succeeded"
            else:
                yield from self._publish(job)
                self.outcome = "succeeded"
        except MadeRoom:
            yield "make room"
            self._give_back(job)
        except Fenced:
            self.outcome = "fenced"
        except CodeChanged as changed:
            assert self.order is not None  # who else compares
            give_back(self.state, self.order, changed, now=self.clock.now())
            self.outcome = "refused"
        except Exception as error:
            failure = failure_of(error, self.state.artifacts.disk)
            if self.dies_of_errors and failure.reason not in ("InputDamaged", "InputChanged"):
                raise
        while failure is not None and not self.outcome:
            try:
                self._fail(job, failure)
                self.outcome = "failed"
            except Fenced:
                self.outcome = "fenced"
            except PASSING:  # not written; tried again
                if self.dies_of_errors:
                    raise
                yield "fail again"

    def _publish(self, job: JobRecord) -> Iterator[str]:
        yield "write"
        store = self.state.artifacts
        staging = store.staging_folder(job.digest, self.token)
        for folder in _folders_in(job.payload):
            if folder in self.gone:
                raise TerminalFailure("InputChanged", f"{folder} is not there")
        files, metrics = fake_stages.run(_stage(job), job.payload, self._upstream)
        if self.seals:
            yield from self._seal(job.digest, files)
        for name, data in files.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            yield "seal"
        manifest = {
            "inputs": job.payload,
            "stage": job.stage,
            "digest": job.digest,
            "codeRevision": CODE_REVISIONS[_stage(job)],
            "metrics": metrics,
            "seconds": SECONDS_PER_STAGE,
            "createdAt": self.clock.now(),
        }
        record = store.seal(staging, manifest)
        failpoints.reach("artifact-sealed")
        yield "publish"
        publish(self.state, job, staging, record, now=self.clock.now())

    def _make_share(self, job: JobRecord, share: Share) -> Iterator[str]:
        yield "write"
        files, _ = fake_stages.run(_stage(job), job.payload, self._upstream)
        named = list(files.items())
        own = {named[number][0]: named[number][1] for number in share.shards(len(named))}
        yield from self._seal(share.digest, own)
        yield "end"
        with self.state.database.write() as connection:
            jobs.succeed(connection, job.id, self.token, now=self.clock.now())

    def _seal(self, digest: str, files: dict[str, bytes]) -> Iterator[str]:
        shards = Shards(self.state.artifacts.shards(digest), before_next=self._make_room)
        for name, data in files.items():
            if shards.sealed(name.replace("/", "-")) is None:
                yield "compute"
                shards.seal(name.replace("/", "-"), partial(_write, data))
                yield "sealed"

    def _make_room(self) -> None:
        if self.asked_by is not None:
            raise MadeRoom(self.asked_by)

    def _give_back(self, job: JobRecord) -> None:
        try:
            with self.state.database.write() as connection:
                preemptions.make_room(connection, job, now=self.clock.now())
            self.outcome = "made room"
        except Fenced:
            self.outcome = "fenced"

    def heartbeat(self) -> None:
        """Extend the lease, and hear whether another job asks for room. Raises Fenced."""
        failpoints.reach("heartbeat")
        with self.state.database.write() as connection:
            self.asked_by = jobs.heartbeat(
                connection, self.job_id, self.token, self.lease_seconds, now=self.clock.now()
            )

    def _told_to_fail(self, job: JobRecord) -> Failure:
        assert self.failure is not None  # the caller looked
        reason, transient = self.failure
        kind = TransientFailure if transient else TerminalFailure
        return kind(reason, f"{job.stage} went wrong")

    def _fail(self, job: JobRecord, failure: Failure) -> None:
        with self.state.database.write() as connection:
            record_failure(connection, job, failure, now=self.clock.now(), policy=self.policy)

    def write_anyway(self, job: JobRecord, what: str) -> None:
        """Write as one that saw ``job`` running long ago and asks nobody whether it still is."""
        try:
            match what:
                case "heartbeat":
                    self.heartbeat()
                case "release":
                    self.release()
                case "failure":
                    self._fail(job, TransientFailure("Odd", "woke up late"))
                case "artifact":
                    for _ in self._publish(job):
                        pass
        except MadeRoom:
            self._give_back(job)
        except Fenced:
            self.outcome = "fenced"
        except Failure:  # its inputs are gone
            self.outcome = "failed"

    def release(self) -> None:
        """Give the lease back, as on a stop; being fenced is an outcome, too."""
        try:
            with self.state.database.write() as connection:
                jobs.release(connection, self.job_id, self.token)
            self.outcome = "released"
        except Fenced:
            self.outcome = "fenced"

    def job(self) -> JobRecord | None:
        """Return the job as it stands."""
        with self.state.database.read() as connection:
            return jobs.get(connection, self.job_id)

    def _upstream(self, stage: str, digest: str, name: str) -> bytes:
        try:
            return verified_folder(self.state, stage, digest).joinpath(name).read_bytes()
        except Corrupt as damage:
            raise TransientFailure("InputDamaged", str(damage)) from None


def _write(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def _stage(job: JobRecord) -> Stage:
    return next(stage for stage in CODE_REVISIONS if stage == job.stage)


def _folders_in(payload: dict[str, Any]) -> Iterator[str]:
    """Yield the folders of the models and dictionaries that a payload names."""
    for name, value in payload.items():
        if name == "folder":
            yield value
        elif isinstance(value, dict):
            yield from _folders_in(value)
