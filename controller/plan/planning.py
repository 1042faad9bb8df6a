"""The planner: the reconcilers asked about the store as an apply would leave it.

Nothing is written and nothing is queued. The answer is exact as far as inputs are known; what
rests on an artifact that is still to be made is *unknown*, because equal content runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from loopscope.controller.apply.intents import Intent
from loopscope.controller.apply.planned import Planned, PlannedObject, PlannedStage, StageState
from loopscope.controller.plan.older_rules import OlderWork, older_work
from loopscope.controller.plan.overlay import Overlay
from loopscope.controller.plan.reasons import reasons, spec_changes
from loopscope.controller.reconcile.adoption import AtOnce
from loopscope.controller.reconcile.snapshots import Observer, known_of, read_snapshot
from loopscope.reconcilers import experiment
from loopscope.reconcilers.plan import (
    Answered,
    Blocked,
    Desired,
    Observed,
    Plan,
    Snapshot,
    Unmet,
    Wanted,
)
from loopscope.reconcilers.references import object_references
from loopscope.reconcilers.registry import DESIRED_BY_KIND
from loopscope.reconcilers.stage import plan_stage
from loopscope.specs.actions import SHAREABLE, Stage
from loopscope.specs.keys import PARALLELISM_ANNOTATION, Key
from loopscope.specs.parallelism import worker_count
from loopscope.specs.pipeline import OWNER_KINDS, STAGE_KINDS
from loopscope.specs.status import Status
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db import applied, jobs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.records import UNAVAILABLE, ObjectRecord, edition_of
from loopscope.state.register import Intentions
from loopscope.views.forecasts import Forecast, Forecaster, Known
from loopscope.views.past_runs import NO_PAST_RUN, Estimate, PastRuns

_ORDER = {kind: number for number, kind in enumerate(STAGE_KINDS)}


def plan_apply(
    connection: Connection,
    store: ArtifactStore,
    wanted: Sequence[Intent],
    *,
    now: float,
    unchanged: Sequence[Key] = (),
    prune: Sequence[Key] = (),
    forecaster: Callable[[Known], Forecaster] | None = None,
    intentions: Intentions | None = None,
) -> Planned:
    """Return what applying ``wanted`` (and pruning) would set in motion.

    ``unchanged`` are objects whose files were found unchanged without being read. With a
    ``forecaster`` what never ran is reckoned from its shapes. By ``intentions`` what is blinded is.
    """
    planner = _Planner(connection, Observer(store, AtOnce(store), intentions), now, forecaster)
    planner.let_go(wanted, unchanged)
    for intent in wanted:
        planner.overlay.seen[intent.key] = edition_of(intent.stored)
        planner.apply(intent)
    for key in unchanged:
        planner.take(key)
    for key in prune:
        planner.overlay.remove(key)
    planner.add_dependants()
    stages = planner.evaluate()
    return Planned(
        (
            *(PlannedObject(i.key, i.outcome, tuple(i.changes)) for i in wanted),
            *(PlannedObject(key, "unchanged") for key in unchanged),
        ),
        tuple(stages),
        tuple(prune),
        dict(planner.overlay.seen),
    )


class _Planner:
    """One pass over all stages that a change can reach, upstream before downstream."""

    def __init__(
        self,
        connection: Connection,
        observer: Observer,
        now: float,
        forecaster: Callable[[Known], Forecaster] | None,
    ) -> None:
        self.connection = connection
        self.now = now
        self.overlay = Overlay(connection, now)
        self.observer = observer
        self.past = PastRuns(connection, observer.artifacts)
        self.forecaster = forecaster(self.overlay) if forecaster is not None else None
        self.older: dict[Key, OlderWork] = {}
        self.root_of: dict[Key, Key] = {}
        self.edited: set[Key] = set()
        self.stalled: list[PlannedStage] = []
        self.dropped: list[PlannedStage] = []
        self.shared: dict[str, PlannedStage] = {}

    def let_go(self, wanted: Sequence[Intent], unchanged: Sequence[Key]) -> None:
        """Let what these objects have of older rules be made again, as a confirmed apply does."""
        planned = [intent for intent in wanted if not (intent.stands or intent.only_protects)]
        roots = [*(intent.key for intent in planned), *unchanged]
        edited = {intent.key for intent in wanted if not intent.is_same_spec}
        for one in older_work(self.connection, self.observer, roots, edited):
            record = self.overlay.get(one.key)
            if record is not None:
                self.older[one.key] = one
                self.edited.add(one.key)
                seen = record.status.observed_generation
                released = Status(observed_generation=seen)
                self.overlay.put(replace(record, status=released, wanted_digest=None))

    def apply(self, intent: Intent) -> None:
        """Let an object be as intended, with everything that it owns."""
        if not intent.stands:
            record = self.overlay.apply(intent.key, intent.spec)
            self.overlay.put(replace(record, annotations=intent.annotations))
        if intent.stored is not None and not intent.is_same_spec:
            self.edited.add(intent.key)
        self.take(intent.key)

    def take(self, key: Key) -> None:
        """Look at an object and everything that it owns."""
        if key.kind not in OWNER_KINDS:
            self.root_of[key] = key
        else:
            self._take_owned(key, key)

    def _take_owned(self, key: Key, root: Key) -> None:
        snapshot = self._snapshot(key)
        if snapshot is None:
            return
        plan = experiment.plan(snapshot)
        stalled = plan.status.condition("Stalled")
        if stalled is not None and stalled.reason == "OwnedByAnother":
            self.stalled.append(PlannedStage(key, root, "stalled", (stalled.message,)))
            return
        for child in plan.apply:
            self.overlay.apply_child(snapshot.object, child)
        for gone in plan.remove:
            record = self.overlay.get(gone)
            self.overlay.remove(gone)
            if record is not None:
                lost = self._discarded(record, None) if root in self.edited else 0.0
                words = ("the spec no longer asks for it",)
                self.dropped.append(
                    PlannedStage(gone, root, "no work", words, discards_seconds=lost)
                )
        inner = experiment.owned_experiments(snapshot.object)
        if inner is not None:
            for child in inner:
                self._take_owned(child.key, root)
            return
        for child in experiment.child_manifests(snapshot.object):
            self.root_of[child.key] = root

    def add_dependants(self) -> None:
        """Look at objects of their own that rest on what is looked at, too."""
        if not self.root_of:
            return
        others = [
            record
            for key in applied.standing(self.connection)
            if key.kind in _ORDER and key not in self.root_of
            if (record := self.overlay.get(key)) is not None and object_references(record)
        ]
        for record in sorted(others, key=lambda r: _ORDER[r.key.kind]):
            if any(reference in self.root_of for reference in object_references(record)):
                self.root_of[record.key] = record.key

    def evaluate(self) -> list[PlannedStage]:
        """Return every stage with what would become of it, in the order of the roots."""
        found = {}
        for key in sorted(self.root_of, key=lambda k: (_ORDER[k.kind], k)):
            stage = self._stage(key)
            if stage is not None:
                found[key] = stage
        in_order = [found[key] for key in self.root_of if key in found]
        return [*self.stalled, *self.shared.values(), *in_order, *self.dropped]

    def _stage(self, key: Key) -> PlannedStage | None:
        snapshot = self._snapshot(key)
        if snapshot is None:
            return None
        stored = self.overlay.stored(key)
        desired = DESIRED_BY_KIND[key.kind](snapshot)
        observed = self.observer.observe(snapshot, desired, known_of(self.connection, desired, key))
        for unmet in observed.unmet:
            self._share(key, unmet)
        plan = plan_stage(snapshot, desired, observed)
        after = replace(snapshot.object, status=plan.status, wanted_digest=plan.wanted_digest)
        self.overlay.put(after)
        state, until = _state(self.overlay, snapshot, desired, observed, plan)
        stage = PlannedStage(key, self.root_of[key], state, until=until)
        if self._is_touched(key, snapshot.object):
            lost = self._discarded(stored, plan.wanted_digest) if stored else 0.0
            if lost:
                self.edited.add(key)
            stage = replace(stage, discards_seconds=lost)
        if isinstance(desired, Wanted):
            stage = replace(stage, digest=desired.action.digest)
        if key in self.older and state != "cached":
            stage = replace(stage, rule=self.older[key].words)
        if state == "no work" and isinstance(desired, Answered):
            return replace(stage, why=(desired.message,))
        if state == "stalled":
            stalled = plan.status.condition("Stalled")
            return replace(stage, why=(f"{stalled.reason}: {stalled.message}",) if stalled else ())
        if state == "cached":
            return self._compared(stage, snapshot.object)
        if stage.rule is not None:
            why = (stage.rule, *spec_changes(stored, snapshot.object))
            return self._estimated(replace(stage, why=why), stored, snapshot.object, desired)
        why = reasons(self.connection, self.past.store, stored, snapshot, desired, observed)
        if isinstance(desired, Wanted):
            why = (*why, *desired.remarks, *self._sharing(desired.action.stage, snapshot.object))
        return self._estimated(replace(stage, why=why), stored, snapshot.object, desired)

    def _sharing(self, stage: Stage, record: ObjectRecord) -> tuple[str, ...]:
        """Return in words how many workers the object, or its owner, wants at its shards."""
        owner = self.overlay.get(record.owner) if record.owner is not None else None
        said = {**(owner.annotations if owner is not None else {}), **record.annotations}
        count = worker_count(said.get(PARALLELISM_ANNOTATION, "")) if stage in SHAREABLE else None
        return (f"by up to {count} workers at once",) if count is not None and count > 1 else ()

    def _share(self, key: Key, unmet: Unmet) -> None:
        """Note an artifact that belongs to no object, and one more stage that waits for it."""
        action, job = unmet.action, unmet.observed.job
        known = self.shared.get(action.digest)
        if known is not None:
            self.shared[action.digest] = replace(known, why=(f"{known.why[0]}, {key}",))
            return
        active = job is not None and job.state in ("pending", "running")
        state: StageState = "to do"
        if job is not None and active:
            state = "running" if job.state == "running" else "queued"
        foreseen = self.forecaster.of_shared(action) if self.forecaster else None
        guess = _guess(self.past.estimate(action.stage, action.digest, action), foreseen)
        self.shared[action.digest] = PlannedStage(
            Key(action.stage, key.namespace, action.digest[:12]),
            self.root_of[key],
            state,
            why=(f"shared; needed by {key}",),
            digest=action.digest,
            seconds=guess.seconds,
            bytes=guess.bytes,
            memory=guess.memory,
            basis=guess.basis,
        )

    def _compared(self, stage: PlannedStage, record: ObjectRecord) -> PlannedStage:
        """Return a finished stage with what it took, and what is foreseen for its shapes."""
        if self.forecaster is None or stage.digest is None:
            return stage
        runs = self.past.made(stage.key.kind.lower(), stage.digest)
        took = sum(self.past.seconds(run) for run in runs)
        foreseen = self.forecaster.of(record)
        return replace(stage, took=took or None, seconds=foreseen.seconds, basis=foreseen.basis)

    def _estimated(
        self,
        stage: PlannedStage,
        stored: ObjectRecord | None,
        record: ObjectRecord,
        desired: Desired,
    ) -> PlannedStage:
        own = stored.status.artifact.digest if stored and stored.status.artifact else None
        own = own or (stored.wanted_digest if stored else None)
        action = desired.action if isinstance(desired, Wanted) else None
        foreseen = self.forecaster.of(record) if self.forecaster else None
        guess = _guess(self.past.estimate(stage.key.kind.lower(), own, action), foreseen)
        return replace(
            stage,
            seconds=guess.seconds,
            bytes=guess.bytes,
            memory=guess.memory,
            basis=guess.basis,
        )

    def _is_touched(self, key: Key, record: ObjectRecord) -> bool:
        """Whether what happens to a stage follows from an edit or an upgrade, not from damage."""
        if key in self.edited or self.root_of[key] in self.edited:
            return True
        return any(reference in self.edited for reference in object_references(record))

    def _discarded(self, stored: ObjectRecord, wanted: str | None) -> float:
        """Return the seconds of work that a stage rests on now and would not want any more."""
        before = stored.wanted_digest
        if before is None or before == wanted or self._wanted_elsewhere(before):
            return 0.0
        seconds = 0.0
        for run in self.past.made(stored.key.kind.lower(), before):
            seconds += self.past.seconds(run)
        job = jobs.find_active(self.connection, before)
        if job is not None and job.state == "running" and job.started_at is not None:
            seconds += max(0.0, self.now - job.started_at)
        return seconds

    def _wanted_elsewhere(self, digest: str) -> bool:
        return any(key not in self.root_of for key in objects.wanting(self.connection, digest))

    def _snapshot(self, key: Key) -> Snapshot | None:
        return read_snapshot(self.connection, key, self.now, self.overlay)


def _guess(past: Estimate, foreseen: Forecast | None) -> Forecast:
    """Return the best guess: runs alike, else shapes, else any run, else why there is none."""
    if foreseen is None or past.is_alike:
        memory = foreseen.memory if foreseen is not None else None
        return Forecast(past.seconds, past.bytes, memory, past.basis)
    if foreseen.seconds is None and past.seconds is not None:
        return Forecast(past.seconds, past.bytes, foreseen.memory, past.basis)
    if foreseen.seconds is None:
        return replace(foreseen, basis=f"{NO_PAST_RUN}; {foreseen.basis}")
    return foreseen


def _state(
    overlay: Overlay, snapshot: Snapshot, desired: Desired, observed: Observed, plan: Plan
) -> tuple[StageState, str | None]:
    """Return what would become of a stage, and what it waits for if that is not known."""
    if isinstance(desired, Answered):
        return "no work", None
    if plan.status.condition("Stalled") is not None:
        return "stalled", None
    if isinstance(desired, Blocked):
        if desired.reason in ("Resolving", UNAVAILABLE):
            return "unknown", desired.message
        return "unknown", _waits_for(overlay, snapshot)
    if plan.status.is_true("Ready", snapshot.object.generation):
        return "cached", None
    if plan.enqueue is not None or observed.job is None:
        return "to do", None
    return ("running" if observed.job.state == "running" else "queued"), None


def _waits_for(overlay: Overlay, snapshot: Snapshot) -> str:
    waiting = [
        str(key)
        for key in object_references(snapshot.object)
        if (record := overlay.get(key)) is not None and not record.ready
    ]
    return f"{' and '.join(waiting)} {'has' if len(waiting) == 1 else 'have'} run"
