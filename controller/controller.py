"""The loop: sources -> work queue -> plan -> one commit -> job queue -> worker -> status.

Single-threaded and level-triggered: ``step`` does everything that is due and says when to
come back. Nothing in memory is needed to go on after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import structlog

from controller.clock import Clock
from controller.commit import commit
from controller.executor import Executor
from controller.leases import lost_jobs, take_back
from controller.limits import WINDOW_SECONDS, start_allowed_at
from controller.resolution import Resolution, Resolver
from controller.settings import Settings
from controller.snapshots import Observer, read_snapshot
from controller.verification import Verifier
from controller.work_queue import Priority, WorkQueue
from reconcilers import experiment
from reconcilers.plan import Blocked, Desired, Failed, Plan, Snapshot, Wait
from reconcilers.references import InputReference, input_references, object_references
from reconcilers.registry import DESIRED_BY_KIND
from reconcilers.stage import plan_stage
from specs.objects import Key
from state import events, failpoints, inputs, jobs, objects
from state.folder import StateFolder
from state.objects import Conflict, Gone

log = structlog.get_logger("controller")

_UNRESOLVED = ("Resolving", "InputRefused")
"""Looked at again now and then: a hub comes back, a gate is opened, a file is put right."""

ROUNDS_PER_STEP_MAX = 20
"""A step follows what its own writes set off this far; the rest waits for the next step."""


@dataclass
class Controller:
    """Keeps one state folder true to its specs. Hold the leader lock while using it."""

    state: StateFolder
    settings: Settings
    clock: Clock
    executor: Executor
    resolver: Resolver
    queue: WorkQueue = field(init=False)
    _observer: Observer = field(init=False)
    _verifier: Verifier = field(init=False)
    _version: int = 0
    _caught_up: bool = False
    _next_resync_at: float = 0.0
    _next_lease_check_at: float = 0.0
    _start_not_before: float = 0.0
    _reobserved_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = WorkQueue(self.clock)
        self._observer = Observer(self.state.artifacts)
        self._verifier = Verifier(self.state.artifacts, self.settings.verify_bytes_per_resync)

    def step(self) -> float:
        """Do everything that is due; return when to come back at the latest (Unix seconds)."""
        self._collect_ended_jobs()
        self._resync_if_due()
        self._record_resolutions()
        self._take_back_lost_leases()
        self._caught_up = False
        for _ in range(ROUNDS_PER_STEP_MAX):
            self._read_changes()
            if not self._process_due():
                self._caught_up = True
                break
        self._cancel_unwanted_jobs()
        self._start_jobs()
        return self._next_wake_at()

    @property
    def idle(self) -> bool:
        """Whether the last step left no change unread, no key and no resolution waiting."""
        return self._caught_up and len(self.queue) == 0 and not self.resolver.busy

    # -- sources ---------------------------------------------------------------

    def _read_changes(self) -> None:
        with self.state.database.read() as connection:
            try:
                changes = objects.changes_since(connection, self._version)
                changed = {change.key for change in changes}
            except Gone:  # nobody knows what was missed: look at everything
                changed = set(objects.keys(objects.listed(connection)))
            self._version = objects.resource_version(connection)
            if not changed:
                return
            everything = objects.listed(connection)
        for record in everything:
            touched = record.key in changed or record.owner in changed
            if touched or changed.intersection(object_references(record)):
                self.queue.add(record.key)
            if record.key in changed and record.owner is not None:
                self.queue.add(record.owner)
        for key in sorted(changed - set(objects.keys(everything))):
            self.queue.add(key)

    def _resync_if_due(self) -> None:
        now = self.clock.now()
        if now < self._next_resync_at:
            return
        self._next_resync_at = now + self.settings.resync_seconds
        with self.state.database.read() as connection:
            everything = objects.listed(connection)
            tokens = {job.token for job in jobs.running(connection)}
        self.state.artifacts.discard_staging(keep_tokens=tokens)
        self._quarantine_damaged()
        for record in everything:
            self.queue.add(record.key, "low")
            for reference in input_references(record):
                if _is_local(reference):
                    self.resolver.request(reference)

    def _quarantine_damaged(self) -> None:
        """Hash a budget of artifacts again; what is corrupt loses its place and is remade."""
        now = self.clock.now()
        with self.state.database.read() as connection:
            damaged = self._verifier.verify_some(connection)
        for artifact, what in damaged:
            with self.state.database.write() as connection:
                keys = self._verifier.set_aside(connection, artifact, what, now)
                for key in keys:
                    events.record(connection, key, "Warning", "ArtifactDamaged", what, now=now)
            self._add_all(keys)

    def _record_resolutions(self) -> None:
        for resolution in self.resolver.finished():
            with self.state.database.write() as connection:
                changed = _record_resolution(connection, resolution, self.clock.now())
                everything = objects.listed(connection) if changed else []
            for record in everything:
                if resolution.reference in input_references(record):
                    self.queue.add(record.key)

    def _collect_ended_jobs(self) -> None:
        for job_id in self.executor.finished():
            with self.state.database.read() as connection:
                job = jobs.get(connection, job_id)
                keys = objects.wanting(connection, job.digest) if job else []
            if job is not None:
                log.info("job ended", job=job.id, stage=job.stage, state=job.state)
                self._add_all([job.object, *keys])
            self._next_lease_check_at = 0.0

    def _take_back_lost_leases(self) -> None:
        now = self.clock.now()
        if now < self._next_lease_check_at:
            return
        self._next_lease_check_at = now + 1.0
        with self.state.database.read() as connection:
            lost = lost_jobs(jobs.running(connection), self.executor, now)
        for job in lost:
            log.warning("lease lost", job=job.id, stage=job.stage, worker=job.worker)
            failpoints.reach("lease-take-back")
            self.executor.kill(job.worker or "")
            try:
                with self.state.database.write() as connection:
                    keys = take_back(connection, job, self.settings.retry, now)
                    keys.extend(objects.wanting(connection, job.digest))
            except jobs.Fenced:
                continue
            self._add_all(keys)

    # -- reconcile -------------------------------------------------------------

    def _process_due(self) -> bool:
        """Reconcile every key that is due; return whether there was one."""
        found = False
        while (key := self.queue.take()) is not None:
            self._process(key)
            found = True
        return found

    def _process(self, key: Key) -> None:
        try:
            plan = self._reconcile(key)
        except Conflict:
            self.queue.add_rate_limited(key)
            return
        except Exception as error:  # one object's trouble must not stop the others
            self._report_trouble(key, error)
            self.queue.add_rate_limited(key)
            return
        finally:
            self.queue.done(key)
        match plan.result if plan else None:
            case Failed(terminal=False):
                self.queue.add_rate_limited(key)
            case Wait(until=until):
                self.queue.forget(key)
                self.queue.add_after(key, until)
            case _:
                self.queue.forget(key)

    def _report_trouble(self, key: Key, error: Exception) -> None:
        log.error("reconcile failed", object=str(key), exc_info=error)
        message = f"{type(error).__name__}: {error}; retried with backoff"
        with self.state.database.write() as connection:
            now = self.clock.now()
            events.record(connection, key, "Warning", "ReconcileError", message, now=now)

    def _reconcile(self, key: Key) -> Plan | None:
        now = self.clock.now()
        with self.state.database.read() as connection:
            snapshot = read_snapshot(connection, key, now)
            if snapshot is None:
                return None
            if key.kind == "Experiment":
                plan, desired = experiment.plan(snapshot), None
            else:
                desired = DESIRED_BY_KIND[key.kind](snapshot)
                observed = self._observer.observe(connection, snapshot.object, desired)
                plan = plan_stage(snapshot, desired, observed)
        self._resolve_if_blocked(snapshot, desired)
        if not _would_write(snapshot, plan):
            return plan
        with self.state.database.write() as connection:
            job_added = commit(connection, self.state.artifacts, snapshot, plan, now)
        failpoints.reach("plan-committed")
        self._log(snapshot, plan, job_added)
        return plan

    def _resolve_if_blocked(self, snapshot: Snapshot, desired: Desired | None) -> None:
        if not isinstance(desired, Blocked) or desired.reason not in _UNRESOLVED:
            return
        now = self.clock.now()
        for reference in input_references(snapshot.object):
            tried_at = self._reobserved_at.get(reference.digest)
            if tried_at is None or now >= tried_at + self.settings.resolve_retry_seconds:
                self._reobserved_at[reference.digest] = now
                self.resolver.request(reference)

    def _log(self, snapshot: Snapshot, plan: Plan, job_added: int | None) -> None:
        ready = plan.status.condition("Ready")
        log.info(
            "reconciled",
            object=str(snapshot.object.key),
            generation=snapshot.object.generation,
            digest=(plan.wanted_digest or "")[:12],
            ready=ready.status if ready else None,
            reason=ready.reason if ready else None,
            job_added=job_added,
        )

    # -- jobs ------------------------------------------------------------------

    def _cancel_unwanted_jobs(self) -> None:
        with self.state.database.read() as connection:
            active = jobs.listed(connection)
            wanted = objects.wanted_digests(connection) if active else set()
        for job in active:
            if job.digest in wanted:
                continue
            failpoints.reach("job-cancel")
            with self.state.database.write() as connection:
                if job.digest in objects.wanted_digests(connection):
                    continue
                message = f"{job.stage} job {job.id} is no longer wanted"
                now = self.clock.now()
                if jobs.cancel(connection, job.id, "Superseded", message, now=now):
                    events.record(connection, job.object, "Normal", "Superseded", message, now=now)

    def _start_jobs(self) -> None:
        while True:
            now = self.clock.now()
            with self.state.database.read() as connection:
                job = jobs.claimable(connection, now=now)
                starts = jobs.starts_since(connection, now - WINDOW_SECONDS)
            limit = self.settings.job_starts_per_minute
            self._start_not_before = start_allowed_at(starts, limit, now)
            if job is None or self._start_not_before > now:
                return
            worker = self.executor.free_worker()
            if worker is None:
                return
            try:
                with self.state.database.write() as connection:
                    if jobs.starts_since(connection, now - WINDOW_SECONDS) != starts:
                        continue  # somebody else started a job meanwhile: count again
                    claimed = jobs.claim(
                        connection, job.id, worker, self.settings.lease_seconds, now=now
                    )
                    keys = objects.wanting(connection, job.digest)
            except jobs.Fenced:
                continue
            log.info("job started", job=job.id, stage=job.stage, worker=worker)
            failpoints.reach("job-claimed")
            self.executor.start(worker, claimed.id, claimed.token)
            self._add_all(keys)

    def _next_wake_at(self) -> float:
        now = self.clock.now()
        due = [self._next_resync_at, now + 1.0]
        if (key_due_at := self.queue.next_due_at()) is not None:
            due.append(key_due_at)
        if self._start_not_before > now:
            due.append(self._start_not_before)
        return min(due)

    def _add_all(self, keys: list[Key], priority: Priority = "high") -> None:
        for key in keys:
            self.queue.add(key, priority)


def _would_write(snapshot: Snapshot, plan: Plan) -> bool:
    """Whether committing the plan changes anything; a converged object writes nothing."""
    record = snapshot.object
    same_status = plan.status == record.status and plan.wanted_digest == record.wanted_digest
    acts = plan.enqueue or plan.quarantine or plan.adopt or plan.apply or plan.remove
    return not same_status or bool(acts)


def _record_resolution(connection: Any, resolution: Resolution, now: float) -> bool:
    return inputs.record(
        connection,
        resolution.reference.digest,
        resolution.reference.kind,
        resolution.reference.reference,
        now=now,
        facts=resolution.facts,
        reason=resolution.reason,
        message=resolution.message,
        terminal=resolution.terminal,
    )


def _is_local(reference: InputReference) -> bool:
    """Whether looking again needs no network; hub names stay pinned to their first commit."""
    if reference.kind == "dictionary":
        return "path" in reference.reference
    source = reference.reference.get("source", {})
    return any(name in source for name in ("package", "gguf", "folder"))
