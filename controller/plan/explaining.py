"""Explanation of an object's state: one chain from spec field to condition.

The reconcilers are asked what the object wants now; jobs and artifacts say how far that is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from loopscope.controller.plan.reasons import change_words, changed_names
from loopscope.controller.reconcile.adoption import AtOnce
from loopscope.controller.reconcile.snapshots import (
    Observer,
    StoredObjects,
    known_of,
    read_snapshot,
)
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
    input_references,
    object_references,
)
from loopscope.reconcilers.registry import DESIRED_BY_KIND
from loopscope.reconcilers.stage import LET_GO
from loopscope.specs.actions import CODE_REVISIONS, revision_words
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import NODE_NAMES
from loopscope.specs.status import Condition
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db import inputs, jobs
from loopscope.state.db.connection import Connection
from loopscope.state.records import (
    CODE_CHANGED,
    UNAVAILABLE,
    WAITS_FOR_SPACE,
    JobHead,
    ObjectRecord,
    Progress,
)
from loopscope.state.workers import without_lost_worker

Who = Literal["nobody", "worker", "controller", "time", "you"]
LINKS_MAX = 10


@dataclass(frozen=True)
class Link:
    """One object on the chain, from its spec to its condition."""

    key: Key
    state: str
    condition: Condition | None
    changed: tuple[str, ...] = ()
    """What differs from the work before; empty when there was none."""
    digest: str | None = None
    upstream: dict[str, str] = field(default_factory=dict)
    """Name of an input to the content that it rests on."""
    job: JobHead | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class Explanation:
    """The chain, outermost object first, and what happens next."""

    links: tuple[Link, ...]
    next: str
    who: Who


def explain(
    connection: Connection,
    store: ArtifactStore,
    key: Key,
    *,
    now: float,
    controlled: bool,
    present: Callable[[ObjectRecord], ObjectRecord] = lambda record: record,
) -> Explanation:
    """Return why ``key`` is as it is. ``controlled``: whether a controller works there.

    ``present`` returns a stored object with the status that it has now. Raises KeyError when
    there is no such object.
    """
    explainer = _Explainer(connection, Observer(store, AtOnce(store)), now, present)
    links: list[Link] = []
    todo: Key | None = key
    while todo is not None and len(links) < LINKS_MAX:
        link, todo = explainer.link(todo)
        links.append(link)
    text, who = explainer.next_step(links[-1])
    if not controlled and who in ("worker", "controller", "time"):
        text = f"no controller works here: start `loopscope run` or `loopscope controller`; {text}"
        return Explanation(tuple(links), text, "you")
    return Explanation(tuple(links), text, who)


class _Explainer:
    def __init__(
        self,
        connection: Connection,
        observer: Observer,
        now: float,
        present: Callable[[ObjectRecord], ObjectRecord],
    ) -> None:
        self.connection = connection
        self.present = present
        self.observer = observer
        self.now = now
        self.where = StoredObjects(connection)

    def link(self, key: Key) -> tuple[Link, Key | None]:
        """Return the link of one object and the object that it waits for, if any."""
        snapshot = read_snapshot(self.connection, key, self.now)
        if snapshot is None:
            raise KeyError(str(key))
        if key.kind == "Experiment":
            return self._experiment(snapshot)
        desired = DESIRED_BY_KIND[key.kind](snapshot)
        observed = self.observer.observe(snapshot, desired, known_of(self.connection, desired, key))
        if isinstance(desired, Wanted):
            desired, observed = next_up(desired, observed)
        state = _state(snapshot.object, desired, observed)
        status = self.present(snapshot.object).status
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
        ), None

    def next_step(self, link: Link) -> tuple[str, Who]:
        """Return what must happen next about the last link, and who must do it."""
        job, condition = link.job, link.condition
        match link.state:
            case "ready" | "no work":
                return "nothing: it is as its spec says", "nobody"
            case "running" if job is not None:
                return f"the worker finishes job {job.id}{_progress(link.progress)}", "worker"
            case "queued" if job is not None:
                return self._pending(job)
            case "stalled":
                return _advice(link), "you"
            case "of older rules":
                return f"nothing runs before that is confirmed: {LET_GO}", "you"
            case "resolving":
                return self._resolving(link.key)
            case "not seen":
                return "the controller looks at the newest spec", "controller"
            case "waits" if condition is not None:
                return f"the controller looks again: {condition.message}", "controller"
            case _:
                return "the controller queues its job", "controller"

    def _experiment(self, snapshot: Snapshot) -> tuple[Link, Key | None]:
        record = snapshot.object
        condition = self.present(record).status.condition("Ready")
        children = {child.key: child for child in snapshot.children}
        for stage in NODE_NAMES:
            child = children.get(child_key(record.key, stage))
            if child is not None and not child.ready:
                return Link(record.key, "waits", condition), child.key
        if record.status.observed_generation != record.generation:
            return Link(record.key, "not seen", condition), None
        older = [child for child in children.values() if child.status.is_of_older_rules]
        if older:
            return Link(record.key, "of older rules", condition), older[0].key
        state = "ready" if record.ready else "stalled" if record.stalled else "waits"
        return Link(record.key, state, condition), None

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
        return tuple(
            revision_words(stage, revision)
            for stage, revision in made_by.items()
            if revision < CODE_REVISIONS[stage]
        )

    def _pending(self, job: JobHead) -> tuple[str, Who]:
        if job.reason in WAITS_FOR_SPACE:
            return f"free some disk space: {job.reason}: {job.message}", "you"
        if job.reason == CODE_CHANGED:
            return f"restart the controller: {job.message}", "you"
        if job.not_before > self.now:
            wait = job.not_before - self.now
            return (
                f"job {job.id} is tried again in {wait:.0f} s after {job.reason}: {job.message}",
                "time",
            )
        others = [j for j in jobs.running(self.connection) if j.id != job.id]
        busy = f"; job {others[0].id} ({others[0].stage}) runs before it" if others else ""
        return f"the controller hands job {job.id} to a free worker{busy}", "controller"

    def _resolving(self, key: Key) -> tuple[str, Who]:
        record = self.where.get(key)
        for reference in input_references(record) if record is not None else []:
            known = inputs.get(self.connection, reference.digest)
            if known is None or known.facts is None:
                why = f": {known.reason}: {known.message}" if known is not None else ""
                return f"the controller finds out what the {reference.kind} is{why}", "controller"
        return "the controller looks at its inputs", "controller"


def _state(record: ObjectRecord, desired: Desired, observed: Observed) -> str:
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


def _contents(found: dict[str, Any]) -> dict[str, str]:
    """Return by input what its content is: of an upstream artifact, a model or a dictionary."""
    contents = {}
    for name, value in found.items():
        identity = value.get("contentDigest") or (value.get("ref") or {}).get("identity")
        if identity:
            contents[name] = str(identity)
    return contents


def _advice(link: Link) -> str:
    why = f"{link.condition.reason}: {link.condition.message}" if link.condition else "it stalled"
    words = f"{link.key.kind.lower()} {link.key.name}"
    if link.job is not None and link.job.state == "failed":
        return f"remove the cause, then edit the spec or `loopscope retry {words}`; {why}"
    return f"repair what the condition names; {why}"


def _progress(progress: Progress | None) -> str:
    if progress is None:
        return ""
    return f": {progress.phase} {progress.done}/{progress.total} {progress.unit}"
