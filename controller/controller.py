"""The control loop: sources -> work queue -> plan -> one commit -> job queue -> worker -> status.

Single-threaded and level-triggered: ``step`` does everything that is due and returns when to
call it again. Nothing in memory is needed to go on after a crash.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import structlog

from loopscope.controller.clock import Clock, Turns
from loopscope.controller.jobs.executor import Executor
from loopscope.controller.jobs.job_upkeep import cancel_unwanted, report_end, retry_after_restart
from loopscope.controller.jobs.leases import Leases, LeaseWatch
from loopscope.controller.jobs.making_room import MakingRoom
from loopscope.controller.jobs.sharing import Sharing
from loopscope.controller.jobs.starting import Starter
from loopscope.controller.notifications.notifier import Notifier
from loopscope.controller.observer import Observer, Unobserved
from loopscope.controller.plan.cached import ReconciledMark
from loopscope.controller.plan.older_rules import plan_of_owner
from loopscope.controller.reconcile.adoption import Adoption
from loopscope.controller.reconcile.converged import Converged
from loopscope.controller.reconcile.dependants import Dependants
from loopscope.controller.reconcile.looks import Looks
from loopscope.controller.reconcile.quiet import Quiet
from loopscope.controller.reconcile.reconciling import Reconciling
from loopscope.controller.reconcile.resolution import LooksAgain, Resolution, Resolver, is_local
from loopscope.controller.reconcile.snapshots import Observer as ArtifactObserver
from loopscope.controller.reconcile.trouble import Trouble
from loopscope.controller.reconcile.verification import SHARE, Verifier
from loopscope.controller.reconcile.work_queue import Priority, WorkQueue
from loopscope.controller.settings import Settings
from loopscope.controller.sources.outside_writes import OutsideWrites
from loopscope.specs.keys import Key
from loopscope.state import failpoints
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.publication import discard_finished_work
from loopscope.state.db import jobs, objects
from loopscope.state.db.objects import Gone
from loopscope.state.folder import StateFolder
from loopscope.state.register import Intentions

log = structlog.get_logger("controller")

ROUNDS_PER_STEP_MAX = 20
"""A step follows what its own writes set off this far; the rest waits for the next step."""

RESYNC_SHARE, RESYNC_PAUSE_SECONDS_MAX = 0.005, 600.0
"""Resyncs, and what they let be read again, take so much of a core each; pauses are no longer."""

STEP_SECONDS = 0.05
"""A step that has reconciled for so long leaves what a resync found to the next one."""

TROUBLE_SECONDS = 0.5
"""How long the loop waits after a step that could not do everything."""

STEP_SECONDS_MAX = 0.5
"""And after so long everything else that is due."""


@dataclass
class Controller:
    """Keeps one state folder true to its specs. Hold the leader lock while using it."""

    state: StateFolder
    settings: Settings
    clock: Clock
    executor: Executor
    resolver: Resolver
    free_bytes: Callable[[], int] = field(default=lambda: sys.maxsize)
    """How many bytes can still be written where the state folder lies."""
    observer: Observer = field(default_factory=Unobserved)
    notifier: Notifier | None = None
    """Who is told which conditions changed."""
    queue: WorkQueue = field(init=False)
    _adoption: Adoption = field(init=False)
    _artifacts: ArtifactObserver = field(init=False)
    _converged: Converged = field(init=False)
    _quiet: Quiet = field(init=False)
    _verifier: Verifier = field(init=False)
    _leases: Leases = field(init=False)
    _reconciling: Reconciling = field(init=False)
    starter: Starter = field(init=False)
    _room: MakingRoom = field(init=False)
    _sharing: Sharing = field(init=False)
    _outside: OutsideWrites = field(default_factory=OutsideWrites)
    _dependants: Dependants = field(default_factory=Dependants)
    _looks: Looks = field(init=False)
    _version: int = 0
    _caught_up: bool = False
    _resyncs: Turns = field(init=False)
    _verify_due: bool = False
    _device_tried: bool = False
    _ended_jobs: deque[int] = field(default_factory=deque)
    _resolutions: deque[Resolution] = field(default_factory=deque)
    _trouble: Trouble = field(default_factory=Trouble)
    _mark: ReconciledMark = field(default_factory=ReconciledMark)

    def __post_init__(self) -> None:
        every = self.settings.resync_seconds
        self._resyncs = Turns(self.clock, every, RESYNC_SHARE, RESYNC_PAUSE_SECONDS_MAX)
        self.queue = WorkQueue(self.clock, self.observer)
        self._adoption = Adoption(self.state.artifacts, self.clock)
        self._artifacts = ArtifactObserver(
            self.state.artifacts, self._adoption, Intentions(self.state.register)
        )
        rereads = Turns(self.clock, 0.0, RESYNC_SHARE, RESYNC_PAUSE_SECONDS_MAX)
        self._converged = Converged(self.state.artifacts, rereads)
        self._quiet = Quiet(self.state.database)
        self._looks = Looks(self._dependants)
        self._reconciling = Reconciling(
            self.state,
            self.clock,
            self.queue,
            self._looks,
            self._converged,
            self._artifacts,
            LooksAgain(self.resolver, self.clock, self.settings.resolve_retry_seconds),
            plan_of_owner,
        )
        self._verifier = Verifier(
            self.state.artifacts,
            self.clock,
            self.settings.verify_bytes_per_resync,
            self.settings.resync_seconds * SHARE,
        )
        self._leases = Leases(
            self.state.database,
            self.clock,
            self.executor,
            self.settings.retry,
            LeaseWatch(self.clock, self.settings.lease_seconds),
        )
        self.starter = Starter(
            self.state, self.settings, self.clock, self.executor, self.free_bytes
        )
        self._room = MakingRoom(self.starter)
        self._sharing = Sharing(self.starter)

    def watch_with(self, observer: Observer) -> None:
        """Report to ``observer`` what happens from now on."""
        self.observer = self.queue.observer = observer

    def step(self) -> float:
        """Do everything that is due; return when to come back at the latest (``Clock.elapsed``)."""
        if self._quiet.lasts() and not self._anything_due():
            return self._next_wake_at()
        marker = self._quiet.now()  # before anything is read
        self._trouble.begin_step()
        for part in (
            self._retry_for_this_device,
            self._collect_ended_jobs,
            self._resync_if_due,
            self._quarantine_damaged,
            self._go_on_hashing,
            self._record_resolutions,
            self._take_back_lost_leases,
            self._notice_commands,
            self._reconcile_due,
            self._cancel_unwanted_jobs,
            self._sharing.look,
            self._start_jobs,
            self._make_room,
            self._mark_reconciled,
        ):
            self._trouble.attempt(part)
        self._trouble.end_step()
        self._quiet.begins(None if self._outside.jobs_are_active or not self.idle else marker)
        return self._next_wake_at()

    def _anything_due(self) -> bool:
        """Whether there is news that no commit announces."""
        self._ended_jobs.extend(self.executor.finished())
        self._resolutions.extend(self.resolver.finished())
        due_at = self.queue.next_due_at() or self._resyncs.next_at
        return not self.idle or self._resyncs.due or self.clock.elapsed() >= due_at

    @property
    def idle(self) -> bool:
        """Whether the last step left no change unread, no key and no resolution waiting."""
        unfinished = self._ended_jobs or self._resolutions or self._verifier.damaged
        waiting = len(self.queue) or self.resolver.busy or unfinished or self._is_hashing
        return self._caught_up and not waiting and self.trouble is None

    @property
    def _is_hashing(self) -> bool:
        """Whether a result of hashing is awaited; the periodic rounds of hashing do not count."""
        return self._adoption.under_way or self._verifier.suspicious

    @property
    def trouble(self) -> str | None:
        """What kept the last step from doing everything, in words; it is tried again."""
        return self._trouble.message

    @property
    def out_of_time(self) -> bool:
        """Whether the time for work is over: it was set, and no job runs that may still end in it.

        Raises TransientFailure when the database cannot tell now.
        """
        stop_at = self.settings.stop_at
        if stop_at is not None and self.clock.elapsed() >= stop_at:
            return True
        if not self.executor.time_is_up():
            return False
        with self.state.database.read() as connection:
            return not jobs.running(connection)

    # -- sources ---------------------------------------------------------------

    def _read_changes(self) -> None:
        with self.state.database.read() as connection:
            try:
                changes = objects.changes_since(connection, self._version)
                changed = {change.key: change.resource_version for change in changes}
                records = objects.get_all(connection, changed.keys())
            except Gone as gone:
                log.warning("everything is listed again", why=str(gone))
                records = objects.listed(connection)
                changed = {record.key: record.resource_version for record in records}
                self._dependants.replace(records)
                self._looks.forget_all()
                self._resyncs.next_at = 0.0
            version = objects.resource_version(connection)
        for key in changed.keys() - {record.key for record in records}:
            self._dependants.forget(key)
        for record in records:
            self._dependants.learn(record)
        if self.notifier is not None:
            self.notifier.look(records, version)
        for key in self._looks.asked_for(changed, records):
            self.queue.add(key)
        self._version = version  # last: after an error the same changes are read again

    def _resync_if_due(self) -> None:
        if not self._resyncs.due:
            return
        with self._resyncs.turn():
            self._resync()

    def _resync(self) -> None:
        with self.state.database.read() as connection:
            if not self._version:  # at the start, no change announces what is there already
                records, version = objects.listed(connection), objects.resource_version(connection)
                self._dependants.replace(records)
                if self.notifier is not None:
                    self.notifier.begin(connection, records, version)
                self._version = version
            everything = objects.all_keys(connection)
            to_read = self._converged.to_read(connection, everything, self.clock.elapsed())
            running = jobs.running(connection)
            published = artifact_index.digests(connection)
            newest = objects.counter(connection, "fencing_token")
        self._verify_due = True
        for key in to_read:
            self.queue.add(key, "low")
        for reference in self._dependants.inputs():
            if is_local(reference):
                self.resolver.request(reference)
        self.state.artifacts.discard_staging({job.token for job in running}, newest)
        finished = published - {job.digest for job in running}
        for digest in self.state.artifacts.worked_on() & finished:
            discard_finished_work(self.state.database, self.state.artifacts, digest)

    def _quarantine_damaged(self) -> None:
        """Hash a budget of artifacts again; what is corrupt loses its place and is remade."""
        if self._verify_due or self._verifier.suspicious:
            self._verifier.verify_some(self.state.database)
            self._verify_due = False
        for keys in self._verifier.set_damaged_aside(self.state.database):
            self._add_all(keys)

    def _go_on_hashing(self) -> None:
        for keys in self._adoption.begin_step():
            self._add_all(keys)

    def _record_resolutions(self) -> None:
        self._resolutions.extend(self.resolver.finished())
        while self._resolutions:
            resolution = self._resolutions[0]
            failpoints.reach("resolution-record")
            with self.state.database.write() as connection:
                changed = resolution.record(connection, self.clock.now())
            if changed:
                self._add_all(self._dependants.of_input(resolution.reference))
            self._resolutions.popleft()  # last: after an error it is recorded again

    def _collect_ended_jobs(self) -> None:
        self._ended_jobs.extend(self.executor.finished())
        while self._ended_jobs:
            failpoints.reach("job-collect")
            with self.state.database.read() as connection:
                job = jobs.head(connection, self._ended_jobs[0])
                keys = objects.wanting(connection, job.digest) if job else []
            if job is not None:
                report_end(self.state.database, job, self.clock)
                self._add_all([job.object, *keys])
            self._leases.check_at_once()
            self._ended_jobs.popleft()  # last: after an error it is collected again

    def _take_back_lost_leases(self) -> None:
        for keys in self._leases.take_back_lost():
            self._add_all(keys)

    def _notice_commands(self) -> None:
        with self.state.database.read() as connection:
            self._add_all(self._outside.look(connection))

    def _mark_reconciled(self) -> None:
        if self.idle:
            self._mark.set(self.state.database)

    # -- reconcile -------------------------------------------------------------

    def _reconcile_due(self) -> None:
        self._caught_up = False
        for _ in range(ROUNDS_PER_STEP_MAX):
            self._read_changes()
            found = self._process_due()
            if found != "some":  # what the last reconcile wrote is not read when the time is up
                self._caught_up = found == "nothing" and not len(self.queue)
                return

    def _process_due(self) -> Literal["nothing", "some", "time is up"]:
        """Reconcile every key that is due; return what there was to do.

        After a while the rest is left to the next step, so that jobs, leases and edits have their
        turn; a long resync gives way sooner than what users did.
        """
        found: Literal["nothing", "some"] = "nothing"
        began = self.clock.elapsed()
        while (key := self.queue.take()) is not None:
            worked = self.clock.worked()
            self._reconciling.process(key)
            if self.queue.took_low:
                self._converged.rereads.owe(self.clock.worked() - worked)
            found = "some"
            most = STEP_SECONDS if self.queue.only_low else STEP_SECONDS_MAX
            if self.clock.elapsed() > began + most:
                return "time is up"
        return found

    # -- jobs ------------------------------------------------------------------

    def _retry_for_this_device(self) -> None:
        if not self._device_tried:
            retry_after_restart(self.state.database, self.settings.device, self.clock)
            self._device_tried = True  # last: after an error it is done again

    def _cancel_unwanted_jobs(self) -> None:
        cancel_unwanted(self.state.database, self.clock)

    def _start_jobs(self) -> None:
        for keys in self.starter.start_jobs():
            self._add_all(keys)

    def _make_room(self) -> None:
        for keys in self._room.look():
            self._add_all(keys)

    def _next_wake_at(self) -> float:
        now, due = self.clock.elapsed(), (self.queue.next_due_at(), self.starter.next_start_at())
        known = [at for at in due if at is not None]
        at_once = self._is_hashing and self.trouble is None
        wake_at = min(now if at_once else now + 1.0, self._resyncs.next_at, *known)
        return wake_at if self.trouble is None else max(wake_at, now + TROUBLE_SECONDS)

    def _add_all(self, keys: list[Key], priority: Priority = "high") -> None:
        for key in keys:
            self.queue.add(key, priority)
