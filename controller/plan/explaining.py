"""The chain that explains an object's state, from its spec to its condition.

The reconcilers determine what the object wants now; jobs and artifacts show how far that is. This
belongs to the control plane because it observes as the controller does; what people read of it
is in ``views.explanation``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from loopscope.controller.plan.reasons import change_words, changed_names
from loopscope.controller.reconcile.adoption import AtOnce
from loopscope.controller.reconcile.snapshots import (
    Observer,
    StoredObjects,
    known_of,
    read_snapshot,
)
from loopscope.reconcilers.experiment import owned_experiments
from loopscope.reconcilers.newest_job import edited_since, needs_a_human
from loopscope.reconcilers.plan import (
    Answered,
    Blocked,
    Desired,
    Observed,
    Snapshot,
    Wanted,
    next_up,
)
from loopscope.reconcilers.references import (
    child_key,
    object_references,
)
from loopscope.reconcilers.registry import DESIRED_BY_KIND
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import NODE_NAMES, OWNER_KINDS
from loopscope.specs.revisions import newer_rules
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db import jobs, shares
from loopscope.state.db.connection import Connection
from loopscope.state.records import UNAVAILABLE, JobHead, ObjectRecord
from loopscope.state.workers import without_lost_worker
from loopscope.views.explanation import Explanation, Link, LinkState, explanation
from loopscope.views.present import present
from loopscope.views.queue import QueueView

LINKS_MAX = 10


def explain(
    connection: Connection,
    store: ArtifactStore,
    key: Key,
    *,
    now: float,
    controlled: bool,
    queue: Callable[[], QueueView] | None = None,
) -> Explanation:
    """Return why ``key`` is as it is. ``controlled``: whether a controller works there.

    ``queue`` is asked only where the chain ends at a job that waits. Raises KeyError if the object
    does not exist.
    """
    explainer = _Explainer(connection, Observer(store, AtOnce(store)), now)
    links: list[Link] = []
    todo: Key | None = key
    while todo is not None and len(links) < LINKS_MAX:
        link, todo = explainer.link(todo)
        links.append(link)
    job, waiting = links[-1].job, None
    if queue is not None and links[-1].state == "queued" and job is not None:
        waiting = next((one.waiting for one in queue().jobs if one.job.id == job.id), None)
    return explanation(connection, tuple(links), now=now, controlled=controlled, waiting=waiting)


class _Explainer:
    def __init__(self, connection: Connection, observer: Observer, now: float) -> None:
        self.connection = connection
        self.observer = observer
        self.now = now
        self.where = StoredObjects(connection)

    def link(self, key: Key) -> tuple[Link, Key | None]:
        """Return the link of one object and the object that it waits for, if any."""
        snapshot = read_snapshot(self.connection, key, self.now)
        if snapshot is None:
            raise KeyError(str(key))
        if key.kind in OWNER_KINDS:
            return self._experiment(snapshot)
        desired = DESIRED_BY_KIND[key.kind](snapshot)
        observed = self.observer.observe(snapshot, desired, known_of(self.connection, desired, key))
        if isinstance(desired, Wanted):
            desired, observed = next_up(desired, observed)
        state = _state(snapshot.object, desired, observed)
        status = self._present(snapshot.object).status
        condition = status.condition("Ready")
        if observed.kept is not None:
            words = (observed.kept.words,)
            return Link(key, state, status.condition("RulesCurrent") or condition, words), None
        if not isinstance(desired, Wanted):
            waits_for = self._waits_for(snapshot) if isinstance(desired, Blocked) else None
            return Link(key, state, condition), waits_for
        job = without_lost_worker(observed.job) if observed.job is not None else None
        progress = jobs.progress_of(self.connection).get(job.id) if job is not None else None
        return Link(
            key,
            state,
            condition,
            self._changed(key, desired),
            desired.action.digest,
            _contents(desired.inputs),
            job,
            progress,
            tuple(self._shares(job)) if job is not None else (),
        ), None

    def _shares(self, job: JobHead) -> Iterator[JobHead]:
        for share in shares.of_job(self.connection, job.id):
            head = jobs.head(self.connection, share.job_id)
            if head is not None:
                yield without_lost_worker(head)

    def _experiment(self, snapshot: Snapshot) -> tuple[Link, Key | None]:
        record = snapshot.object
        condition = self._present(record).status.condition("Ready")
        children = {child.key: child for child in snapshot.children}
        owned = owned_experiments(record)
        in_order = (
            [child_key(record.key, stage) for stage in NODE_NAMES]
            if owned is None
            else [cell.key for cell in owned]
        )
        for key in in_order:
            child = children.get(key)
            if child is not None and not child.ready:
                return Link(record.key, "waits", condition), child.key
        if record.status.observed_generation != record.generation:
            return Link(record.key, "not seen", condition), None
        older = [child for child in children.values() if child.status.is_of_older_rules]
        if older:
            return Link(record.key, "of older rules", condition), older[0].key
        state: LinkState = "ready" if record.ready else "stalled" if record.stalled else "waits"
        return Link(record.key, state, condition), None

    def _present(self, record: ObjectRecord) -> ObjectRecord:
        return present(self.connection, [record])[0]

    def _waits_for(self, snapshot: Snapshot) -> Key | None:
        for key in object_references(snapshot.object):
            record = self.where.get(key)
            if record is not None and not record.ready:
                return key
        return None

    def _changed(self, key: Key, desired: Wanted) -> tuple[str, ...]:
        before = [
            job
            for job in jobs.listed(self.connection, ended=True)
            if job.object == key
            and job.stage == desired.action.stage
            and job.digest != desired.action.digest
        ]
        if not before:
            return ()
        last = jobs.get(self.connection, before[-1].id)
        assert last is not None  # read in this transaction
        old, new = last.payload, desired.action.payload
        rule = self._rule_change(before[-1], desired)
        return (
            *rule,
            *(change_words(name, old.get(name), new.get(name)) for name in changed_names(old, new)),
        )

    def _rule_change(self, before: JobHead, desired: Wanted) -> tuple[str, ...]:
        stage = desired.action.stage
        made_by = self.observer.revisions(stage, before.digest)
        if before.code_revision:
            made_by = {**made_by, stage: before.code_revision}
        return tuple(newer_rules(made_by))


def _state(record: ObjectRecord, desired: Desired, observed: Observed) -> LinkState:
    if observed.kept is not None:
        return "of older rules"
    if isinstance(desired, Answered):
        return "no work"
    if isinstance(desired, Blocked):
        if desired.terminal:
            return "stalled"
        return "resolving" if desired.reason in ("Resolving", UNAVAILABLE) else "waits"
    job = without_lost_worker(observed.job) if observed.job is not None else None
    if job is not None and job.state in ("pending", "running"):
        return "running" if job.state == "running" else "queued"
    action = desired.action if isinstance(desired, Wanted) else None
    if job is not None and needs_a_human(job, action) and not edited_since(record, job):
        return "stalled"
    if record.status.observed_generation != record.generation:
        return "not seen"
    if record.ready and observed.damage is None and observed.artifact is not None:
        return "ready"
    return "stalled" if record.stalled else "to do"


def _contents(found: Mapping[str, Any]) -> dict[str, str]:
    """Return by input what its content is: of an upstream artifact, a model or a dictionary.

    Of a shared artifact, which may not be there yet, it is what that is made from.
    """
    contents = {}
    for name, value in found.items():
        resolved = value.get("ref") or {}
        identity = value.get("contentDigest") or resolved.get("identity") or value.get("digest")
        if identity:
            contents[name] = str(identity)
    return contents
