"""One key reconciled: from its snapshot to a commit, and when it is looked at again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from loopscope.controller.clock import Clock
from loopscope.controller.observer import Result
from loopscope.controller.reconcile.adoption import StillHashing
from loopscope.controller.reconcile.commit import commit, log_committed, would_write
from loopscope.controller.reconcile.converged import Converged
from loopscope.controller.reconcile.dependants import Dependants
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
from loopscope.state.db import events
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
    dependants: Dependants
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
            snapshot = read_snapshot(connection, key, now)
            if snapshot is None:
                self.dependants.forget(key)
                return None
            self.dependants.learn(snapshot.object)
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
            return plan
        self.converged.forget(key)
        if plan.adopt is not None:  # before the lock is taken: this may be gigabytes
            self.state.artifacts.make_durable(plan.adopt)
        with self.state.database.write() as connection:
            job_added = commit(connection, self.state.artifacts, snapshot, plan, now)
        failpoints.reach("plan-committed")
        log_committed(snapshot, plan, job_added)
        return plan
