"""One key reconciled: from its snapshot to a commit, and when it is looked at again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from loopscope.controller.clock import Clock
from loopscope.controller.observer import Result
from loopscope.controller.reconcile.adoption import StillHashing
from loopscope.controller.reconcile.commit import commit, log_committed, would_write
from loopscope.controller.reconcile.converged import Converged
from loopscope.controller.reconcile.looks import Looks
from loopscope.controller.reconcile.resolution import LooksAgain
from loopscope.controller.reconcile.snapshots import Known, Observer, known_of, read_snapshot
from loopscope.controller.reconcile.work_queue import WorkQueue
from loopscope.reconcilers.out_of_reach import REASON, plan_out_of_reach
from loopscope.reconcilers.plan import Desired, Failed, LookAgain, Observed, Plan, Snapshot
from loopscope.reconcilers.registry import DESIRED_BY_KIND
from loopscope.reconcilers.stage import plan_stage
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.state import failpoints
from loopscope.state.artifacts.store import Unreachable
from loopscope.state.db import events, objects
from loopscope.state.db.database import Database
from loopscope.state.db.objects import Conflict
from loopscope.state.failures import TransientFailure
from loopscope.state.folder import StateFolder

log = structlog.get_logger("controller")


@dataclass
class Reconciling:
    """What one reconcile needs; nothing of it is about a single key.

    ``plan_of_owner`` plans an Experiment, which has no work of its own.
    """

    state: StateFolder
    clock: Clock
    queue: WorkQueue
    looks: Looks
    converged: Converged
    artifacts: Observer
    looks_again: LooksAgain
    plan_of_owner: Callable[[Database, Observer, Snapshot], Plan]

    def process(self, key: Key) -> None:
        """Reconcile a key, and let it come back when it should."""
        result: Result = "error"
        began = self.clock.elapsed()
        try:
            plan = self._reconcile(key)
            result = self._follow_up(key, plan)
        except Conflict:
            self.queue.add_rate_limited(key)
            result = "requeue"
        except StillHashing:
            self.queue.forget(key)
            result = "requeue_after"
        except (TransientFailure, Unreachable) as error:  # of database or artifacts: nobody's own
            failures = self.queue.add_rate_limited(key)
            if isinstance(error, Unreachable) and failures == 1:
                self._warn(key, REASON, str(error))
            raise
        except Exception as error:  # one object's trouble must not stop the others
            self.queue.add_rate_limited(key)
            log.error("reconcile failed", object=str(key), exc_info=error)
            words = f"{type(error).__name__}: {error}; retried with backoff"
            self._warn(key, "ReconcileError", words)
        finally:
            self.queue.done(key)
            self.queue.observer.reconciled(key, result, self.clock.elapsed() - began)

    def _follow_up(self, key: Key, plan: Plan | None) -> Result:
        match plan.result if plan else None:
            case Failed(terminal=False):
                self.queue.add_rate_limited(key)
                return "requeue"
            case LookAgain(at_once=at_once):
                self.queue.forget(key)
                self.queue.add_in(key, 0.0 if at_once else self.looks_again.every_seconds)
                return "requeue_after"
            case _:
                self.queue.forget(key)
                return "success"

    def _warn(self, key: Key, reason: str, message: str) -> None:
        now = self.clock.now()
        with self.state.database.write() as connection:
            events.record(connection, key, "Warning", reason, message, now=now)

    def _planned(self, snapshot: Snapshot, desired: Desired, known: Known) -> tuple[Observed, Plan]:
        try:
            observed = self.artifacts.observe(snapshot, desired, known)
        except Unreachable as error:
            return Observed(), plan_out_of_reach(snapshot, str(error))
        return observed, plan_stage(snapshot, desired, observed)

    def _reconcile(self, key: Key) -> Plan | None:
        now = self.clock.now()
        with self.state.database.read() as connection:
            as_of = objects.resource_version(connection)
            snapshot = read_snapshot(connection, key, now)
            if snapshot is None:
                self.looks.dependants.forget(key)
                return None
            self.looks.dependants.learn(snapshot.object)
            of_stage = key.kind not in OWNER_KINDS
            desired = DESIRED_BY_KIND[key.kind](snapshot) if of_stage else None
            known = known_of(connection, desired, key) if desired is not None else Known()
        if desired is None:
            observed = Observed()
            plan = self.plan_of_owner(self.state.database, self.artifacts, snapshot)
        else:
            observed, plan = self._planned(snapshot, desired, known)
        self.looks_again.if_blocked(snapshot.object, desired)
        if not would_write(snapshot, plan):
            self.converged.learn(snapshot, plan, observed.artifact)
            self.looks.took(key, as_of)
            return plan
        self.converged.forget(key)
        if plan.adopt is not None:  # before the lock is taken: this may be gigabytes
            self.state.artifacts.make_durable(plan.adopt)
        with self.state.database.write() as connection:
            job_added = commit(connection, self.state.artifacts, snapshot, plan, now)
            written = objects.resource_version(connection)
        failpoints.reach("plan-committed")
        log_committed(snapshot, plan, job_added)
        self.looks.took(key, as_of)
        after = self._answered(snapshot, desired, observed, plan, job_added is not None)
        if after is not None:
            self.looks.answered(key, written)
            self.converged.learn(after, plan, observed.artifact)
        return plan

    def _answered(
        self,
        snapshot: Snapshot,
        desired: Desired | None,
        observed: Observed,
        plan: Plan,
        has_added_job: bool,
    ) -> Snapshot | None:
        """Return the snapshot after a plan, if a look at it would do nothing more; else None.

        It is planned again upon the status that was written. A job that was added meanwhile waits,
        which is what the status already says.
        """
        acts = plan.quarantine or plan.adopt or plan.apply or plan.remove
        if acts or (plan.enqueue is not None and not has_added_job):
            return None
        after = _with_status(snapshot, plan)
        if after is None:
            return None
        if desired is None:
            again = self.plan_of_owner(self.state.database, self.artifacts, after)
        elif DESIRED_BY_KIND[after.object.key.kind](after) == desired:
            again = plan_stage(after, desired, observed)
        else:
            return None
        more = again if plan.enqueue is None else replace(again, enqueue=None)
        return None if again.result != plan.result or would_write(after, more) else after


def _with_status(snapshot: Snapshot, plan: Plan) -> Snapshot | None:
    """Return what would be read once a plan has written its status; None if that is not known.

    By readiness a snapshot also reads pauses, by an artifact also whether it is protected. That of
    one that rests on what it wants is nothing to its plan.
    """
    before = snapshot.object
    record = replace(before, status=plan.status, wanted_digest=plan.wanted_digest)
    after = replace(snapshot, object=record)
    artifact = plan.status.artifact
    if artifact != before.status.artifact and (
        artifact is None or artifact.digest != plan.wanted_digest
    ):
        return None
    if before.ready and not record.ready:
        return None
    return replace(after, paused_by=None, paused_stages={}) if record.ready else after
