"""The scheduler: which job starts next and where, and why the others wait. One pure function.

The controller claims jobs by it, and ``loopscope queue`` shows its reasons.

Jobs are ranked by level, the highest first: the value of the job's priority class, plus one for
each ``aging_seconds`` that it has waited. So a job is overtaken only by jobs that came before
it, or less than (classes apart + 1) x ``aging_seconds`` after it: no job starves. Within a level,
jobs that were interrupted go on before others begin. Then those go first that need no other model
than an idle worker holds, then those of the experiment that used the least worker time lately, then
the oldest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from loopscope.controller.jobs.limits import start_allowed_at
from loopscope.controller.jobs.quotas import over_quota
from loopscope.controller.settings import Limits
from loopscope.state.db import pauses
from loopscope.state.share import Share

WaitReason = Literal[
    "Suspended",
    "Backoff",
    "FreeSpace",
    "Unplaceable",
    "Slot",
    "Preempted",
    "FairShare",
    "Quota",
    "Memory",
    "Kind",
    "RateLimit",
]


@dataclass(frozen=True)
class Place:
    """Where a job may start now: an idle worker with the model that it holds, or an empty slot."""

    device: str
    worker: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class PendingJob:
    """A job that waits. ``experiments`` are all that want it; the first is charged for it."""

    id: int
    queued_at: float
    not_before: float
    experiments: tuple[str, ...] = ()
    priority: int = 0
    model: str | None = None
    memory_bytes: int = 0
    paused_by: str | None = None
    """The pause that holds it back; only if every object that wants the job is paused."""
    why: str = ""
    """For what it is tried again."""
    refusal: str | None = None
    """Why no worker could hold it."""
    namespaces: tuple[str, ...] = ()
    """Those of the objects that want it; the first is charged for it."""
    preempts_as: tuple[str, int] | None = None
    """The class, and its value, by which running jobs of a lower one make room for it."""
    made_room: str | None = None
    """For whom it made room, if it did."""
    was_interrupted: bool = False
    """Whether it ran, and lost its worker by no doing of its own that is known."""
    maker: str | None = None
    """The kind of processor or card that began its shards with others."""
    is_share: bool = False
    """Whether it makes shards of another job: of no use by a worker of another kind."""


@dataclass(frozen=True)
class RunningJob:
    """A job that runs."""

    id: int
    device: str
    experiment: str = ""
    memory_bytes: int = 0
    namespace: str = ""
    priority: tuple[str, int] = ("normal", 0)
    """Its class, and the value of that."""
    started_at: float = 0.0
    token: int = 0
    has_shards: bool = False
    """Whether it can be given back before its end without losing its work."""
    parallelism: int = 1
    """How many workers are to make its shards at once."""
    maker: str | None = None
    """The kind of its worker, once that is known."""
    shares: tuple[Share, ...] = ()
    """Those that were queued for it, ended ones among them."""


@dataclass(frozen=True)
class QueueSnapshot:
    """All that decides which job is next."""

    now: float
    limits: Limits
    pending: tuple[PendingJob, ...] = ()
    running: tuple[RunningJob, ...] = ()
    places: tuple[Place, ...] = ()
    starts: tuple[float, ...] = ()
    """When jobs started in the last minute, oldest first."""
    used_seconds: Mapping[str, float] = field(default_factory=dict)
    """Worker time by experiment in the last hour."""
    stored_bytes: Mapping[str, int] = field(default_factory=dict)
    """What the artifacts of a namespace take, where a quota limits that."""
    low_space: str | None = None
    """Why nothing may start while so little of the disk is free."""
    reserved_for: int | None = None
    """The job that has waited so long for memory that no other takes any before it."""
    makers: Mapping[str, str] = field(default_factory=dict)
    """The kind of each worker of which it is known."""
    makes_room: Mapping[int, int] = field(default_factory=dict)
    """Jobs that were asked to make room or made it, and whom for."""

    @cached_property
    def nominated(self) -> Mapping[int, int]:
        """The jobs for whom others make room, and the last of those."""
        return {by: job for job, by in sorted(self.makes_room.items())}

    @cached_property
    def held_models(self) -> frozenset[str | None]:
        """The models that idle workers hold."""
        return frozenset(place.model for place in self.places)

    @cached_property
    def slots_taken(self) -> Mapping[str, int]:
        """How many jobs of each experiment run."""
        return Counter(one.experiment for one in self.running)

    @cached_property
    def holders(self) -> Mapping[str, list[str]]:
        """The experiments of the jobs that run, by the namespace that is charged."""
        found: dict[str, list[str]] = {}
        for one in self.running:
            found.setdefault(one.namespace, []).append(one.experiment)
        return found

    @cached_property
    def memory_taken(self) -> Mapping[str, int]:
        """What the jobs that run take of each device's memory."""
        found: Counter[str] = Counter()
        for one in self.running:
            found[one.device] += one.memory_bytes
        return found


@dataclass(frozen=True)
class Wait:
    """Why a job waits, as one word and as a text; ``until`` when that is known (Unix seconds)."""

    reason: WaitReason
    message: str
    until: float | None = None


@dataclass(frozen=True)
class Decision:
    """What becomes of a pending job now: it starts at a place, or waits."""

    job_id: int
    place: Place | None = None
    wait: Wait | None = None


def schedule(snapshot: QueueSnapshot) -> list[Decision]:
    """Return the decision about each pending job, in the order in which they are next."""
    return list(deciding(snapshot))


def deciding(snapshot: QueueSnapshot) -> Iterator[Decision]:
    """Yield the decision about each pending job, in the order in which they are next.

    Who wants the next start alone need not have all of them made.
    """
    for job in ranked(snapshot):
        decision, snapshot = decided(snapshot, job)
        yield decision


def ranked(snapshot: QueueSnapshot) -> list[PendingJob]:
    """Return the pending jobs in the order in which they are next."""
    return sorted(snapshot.pending, key=lambda job: _rank(snapshot, job))


def decided(snapshot: QueueSnapshot, job: PendingJob) -> tuple[Decision, QueueSnapshot]:
    """Return what becomes of the job that is next, and the snapshot for the one behind it."""
    decision = _decide(snapshot, job)
    if decision.place is not None:
        return decision, _with_started(snapshot, job, decision.place)
    if decision.wait is not None and _keeps_memory(snapshot, job, decision.wait):
        return decision, replace(snapshot, reserved_for=snapshot.reserved_for or job.id)
    return decision, snapshot


def next_start(decisions: Iterable[Decision]) -> Decision | None:
    """Return the first job that may start now, or None."""
    return next((one for one in decisions if one.place is not None), None)


def first_start(snapshot: QueueSnapshot) -> Decision | None:
    """Return the first job that may start now, or None, and decide about no job behind it."""
    return next_start(deciding(snapshot))


def level(job: PendingJob, limits: Limits, now: float) -> int:
    """Return the job's priority with what its waiting added."""
    return job.priority + int(max(0.0, now - job.queued_at) // limits.aging_seconds)


_Rank = tuple[bool, int, bool, bool, float, float, int]


def _rank(snapshot: QueueSnapshot, job: PendingJob) -> _Rank:
    """Who was promised room comes first: else others would take it, and more be asked for it.

    Who was interrupted is not set back for the worker time that it had until then.
    """
    loads_a_model = job.model is not None and job.model not in snapshot.held_models
    used = min((snapshot.used_seconds.get(name, 0.0) for name in job.experiments), default=0.0)
    standing = -level(job, snapshot.limits, snapshot.now)
    promised = job.id in snapshot.nominated
    begins = not job.was_interrupted
    return not promised, standing, begins, loads_a_model, used, job.queued_at, job.id


def _decide(snapshot: QueueSnapshot, job: PendingJob) -> Decision:
    wait = _held_back(snapshot, job)
    place = None if wait else _place_for(snapshot, job)
    if place is None and wait is None:
        wait = _no_place(snapshot, job)
    if wait is not None:
        return Decision(job.id, wait=wait)
    limits = snapshot.limits
    starts = list(snapshot.starts)
    at = start_allowed_at(starts, limits.job_starts_per_minute, snapshot.now, limits.burst)
    if at > snapshot.now:
        return Decision(job.id, wait=Wait("RateLimit", _rate_words(limits), at))
    return Decision(job.id, place)


def _held_back(snapshot: QueueSnapshot, job: PendingJob) -> Wait | None:
    """Return what keeps this job from starting wherever there is room."""
    if job.paused_by is not None:
        return Wait("Suspended", f"paused: {pauses.in_words(job.paused_by)}")
    if job.not_before > snapshot.now:
        return Wait("Backoff", job.why, job.not_before)
    if snapshot.low_space is not None:
        return Wait("FreeSpace", snapshot.low_space)
    if job.refusal is not None:
        return Wait("Unplaceable", job.refusal)
    full = _over_quota(snapshot, job)
    if full is not None:
        return Wait("Quota", full)
    most = snapshot.limits.slots_per_experiment
    if most is None or not job.experiments:
        return None
    if min(snapshot.slots_taken.get(name, 0) for name in job.experiments) >= most:
        return Wait("FairShare", f"{job.experiments[0]} has {most} of {most} slots")
    return None


def _over_quota(snapshot: QueueSnapshot, job: PendingJob) -> str | None:
    quotas = snapshot.limits.resource_quotas
    if not quotas:
        return None
    return over_quota(job.namespaces, quotas, snapshot.holders, snapshot.stored_bytes)


def _place_for(snapshot: QueueSnapshot, job: PendingJob) -> Place | None:
    """Return the best place with memory enough: holds the model, holds none, holds another."""
    room = {name: _fits(snapshot, job, name) for name in {p.device for p in snapshot.places}}
    fitting = (
        place for place in snapshot.places if room[place.device] and _suits(snapshot, job, place)
    )
    return min(fitting, key=lambda place: _cost(place, job), default=None)


def _cost(place: Place, job: PendingJob) -> int:
    """A warm worker is kept for jobs that need what it holds, while there is an empty slot."""
    if place.worker is None:
        return 2 if job.model is None else 1
    if job.model is None:
        return 0 if place.model is None else 1
    return 0 if place.model == job.model else 1 if place.model is None else 2


def _fits(snapshot: QueueSnapshot, job: PendingJob, device: str) -> bool:
    """Whether the budget has room; a job that alone is over it may run alone."""
    budget = snapshot.limits.memory_bytes.get(device)
    used = snapshot.memory_taken.get(device, 0)
    if budget is None or not job.memory_bytes or not used:
        return True
    return snapshot.reserved_for is None and used + job.memory_bytes <= budget


def _suits(snapshot: QueueSnapshot, job: PendingJob, place: Place) -> bool:
    """Whether a place may be of the kind that began the job's shards.

    A job that makes an artifact begins anew on another kind where no worker of the first is left.
    """
    found = snapshot.makers.get(place.worker or "")
    if job.maker is None or found is None or found == job.maker:
        return True
    return not job.is_share and job.maker not in snapshot.makers.values()


def _no_place(snapshot: QueueSnapshot, job: PendingJob) -> Wait:
    if not snapshot.places:
        return _no_slot(snapshot, job)
    if not any(_suits(snapshot, job, place) for place in snapshot.places):
        return Wait("Kind", f"its shards were begun by {job.maker}; no free worker is of that kind")
    if snapshot.reserved_for is not None:
        return Wait("Memory", f"job {snapshot.reserved_for} has waited longer for memory")
    budgets = ", ".join(
        f"{size:,} on {name}" for name, size in snapshot.limits.memory_bytes.items()
    )
    return Wait("Memory", f"needs {job.memory_bytes:,} bytes; the budget is {budgets}")


def _no_slot(snapshot: QueueSnapshot, job: PendingJob) -> Wait:
    if job.made_room is not None:
        return Wait("Preempted", job.made_room)
    asked = snapshot.nominated.get(job.id)
    if asked is None or all(one.id != asked for one in snapshot.running):
        return Wait("Slot", "no worker slot is free")
    return Wait("Slot", f"no worker slot is free; job {asked} was asked to make room after a shard")


def _keeps_memory(snapshot: QueueSnapshot, job: PendingJob, wait: Wait) -> bool:
    """Whether small jobs must let a large one pass: it has waited for one step of aging."""
    waited = snapshot.now - job.queued_at
    return wait.reason == "Memory" and waited >= snapshot.limits.aging_seconds


def _with_started(snapshot: QueueSnapshot, job: PendingJob, place: Place) -> QueueSnapshot:
    places = list(snapshot.places)
    places.remove(place)
    charged = job.experiments[0] if job.experiments else ""
    namespace = job.namespaces[0] if job.namespaces else ""
    started = RunningJob(job.id, place.device, charged, job.memory_bytes, namespace)
    return replace(
        snapshot,
        places=tuple(places),
        running=(*snapshot.running, started),
        starts=(*snapshot.starts, snapshot.now),
    )


def _rate_words(limits: Limits) -> str:
    burst = f", at most {limits.burst} at once" if limits.burst is not None else ""
    return f"{limits.job_starts_per_minute} starts a minute{burst}"
