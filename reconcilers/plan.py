"""Snapshots in, plans out. All of it frozen: a plan is data until the controller commits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from loopscope.specs.actions import Action
from loopscope.specs.json_values import JsonObject
from loopscope.specs.keys import Key
from loopscope.specs.registration import InForce
from loopscope.specs.status import Status
from loopscope.state.records import ArtifactRecord, InputRecord, JobHead, ObjectRecord


@dataclass(frozen=True)
class Snapshot:
    """Everything a plan may look at, read in one transaction.

    ``references`` are the objects that the spec names, ``artifacts`` what their status rests
    on (by action digest), ``inputs`` what model and dictionary references resolved to (by
    reference digest).
    """

    object: ObjectRecord
    now: float
    references: Mapping[Key, ObjectRecord] = field(default_factory=dict)
    children: tuple[ObjectRecord, ...] = ()
    artifacts: Mapping[str, ArtifactRecord] = field(default_factory=dict)
    inputs: Mapping[str, InputRecord] = field(default_factory=dict)
    paused_by: str | None = None
    """The pause that holds back the object's work: ``all``, a stage, or the object or its owner."""
    paused_stages: Mapping[str, str] = field(default_factory=dict)
    """The pause that holds back each stage's jobs for the object, shared artifacts' among them."""
    is_protected: bool = False
    """Whether the object, or one that owns it, is annotated so that its finished work is kept."""
    older: frozenset[Key] = frozenset()
    """Children that rest on work of older rules: an upgrade alone does not change their specs."""


@dataclass(frozen=True)
class Kept:
    """Whole work of older rules on which an object goes on to rest until that is released.

    ``words`` name the rules that changed, of the object itself or of what it rests on.
    """

    artifact: ArtifactRecord
    words: str


@dataclass(frozen=True)
class Observed:
    """What exists for a wanted action: its artifact, damage to it, its newest job.

    ``unindexed``: a valid artifact lies on disk that the database does not know (a crash fell
    between the rename and the commit, or the database was restored); the commit takes it over.
    """

    artifact: ArtifactRecord | None = None
    damage: str | None = None
    job: JobHead | None = None
    candidates: tuple[int, ...] | None = None
    unindexed: bool = False
    kept: Kept | None = None
    unmet: tuple[Unmet, ...] = ()
    """The shared artifacts that have to be made before the action can run, the first first."""
    registered: InForce | None = None
    """What a steering's experiment was registered with, and whether it was opened early."""

    @property
    def is_in_place(self) -> bool:
        """Whether the artifact is there, whole, and known to the database."""
        return self.artifact is not None and self.damage is None and not self.unindexed


@dataclass(frozen=True)
class Unmet:
    """A shared artifact that is missing, damaged or not in the index yet, and what exists of it."""

    action: Action
    observed: Observed


@dataclass(frozen=True)
class Blocked:
    """The action cannot be named yet, or ``terminal``: not before a human acts.

    ``keep_wanted``: the upstream will rebuild the same artifact, so work that rests on it is not
    cancelled meanwhile.
    """

    reason: str
    message: str
    terminal: bool = False
    keep_wanted: bool = False


@dataclass(frozen=True)
class Answered:
    """No work is needed: the inputs already hold the answer."""

    reason: str
    message: str
    summary: Mapping[str, object]


@dataclass(frozen=True)
class Wanted:
    """The action whose artifact the object needs, and what its inputs were.

    ``needs`` are shared artifacts that the action reads. They belong to no object: each is made
    once, by one job, however many objects wait for it, and only where the object's own artifact
    is missing. The action's digest covers theirs.
    """

    action: Action
    inputs: Mapping[str, object]
    needs: tuple[Action, ...] = ()
    remarks: tuple[str, ...] = ()
    """What the work will cost beside the usual, in words."""
    transfer: str | None = None
    """From which model a dictionary is taken to which, in words, where these are two."""

    def with_digest(self, digest: str) -> Action | None:
        """Return the action of that digest: the object's own, or one that it needs."""
        return next((one for one in (self.action, *self.needs) if one.digest == digest), None)


def next_up(wanted: Wanted, observed: Observed) -> tuple[Wanted, Observed]:
    """Return what is to be made next for a wanted action, and what exists of that."""
    if not observed.unmet:
        return wanted, observed
    first = observed.unmet[0]
    return Wanted(first.action, wanted.inputs), first.observed


Desired = Wanted | Blocked | Answered


@dataclass(frozen=True)
class Done:
    """Nothing more to do until something changes."""


@dataclass(frozen=True)
class LookAgain:
    """Look again ``at_once``, or as soon as inputs that are not known are asked for again."""

    reason: str
    at_once: bool = False


@dataclass(frozen=True)
class Failed:
    """The reconcile did not succeed; retried with backoff unless ``terminal``."""

    reason: str
    terminal: bool


Result = Done | LookAgain | Failed


@dataclass(frozen=True)
class ChildManifest:
    """An object that its owner wants to exist."""

    key: Key
    spec: JsonObject
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels beside the one that names the owner."""


@dataclass(frozen=True)
class PlannedEvent:
    """An event to record when the plan changes something."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """What to commit, in one transaction."""

    status: Status
    wanted_digest: str | None = None
    enqueue: Action | None = None
    quarantine: ArtifactRecord | None = None
    adopt: ArtifactRecord | None = None
    apply: tuple[ChildManifest, ...] = ()
    remove: tuple[Key, ...] = ()
    events: tuple[PlannedEvent, ...] = ()
    result: Result = Done()
