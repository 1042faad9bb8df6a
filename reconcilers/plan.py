"""Snapshots in, plans out. All of it frozen: a plan is data until the controller commits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
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
    older: frozenset[Key] = frozenset()
    """Children that rest on work of older rules: an upgrade alone does not change their specs."""


@dataclass(frozen=True)
class Kept:
    """Whole work of older rules on which an object goes on to rest until somebody lets it go.

    ``words`` say which rules changed, of the object itself or of what it rests on.
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


@dataclass(frozen=True)
class Blocked:
    """The action cannot be named yet, or ``terminal``: not before a human acts.

    ``keep_wanted``: the upstream will rebuild the same artifact, so work that rests on it
    need not be cancelled meanwhile.
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
    summary: dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """The action whose artifact the object needs, and what its inputs were."""

    action: Action
    inputs: dict[str, Any]


Desired = Wanted | Blocked | Answered


@dataclass(frozen=True)
class Done:
    """Nothing more to do until something changes."""


@dataclass(frozen=True)
class Wait:
    """Look again at ``until`` (Unix seconds)."""

    until: float
    reason: str


@dataclass(frozen=True)
class Failed:
    """The reconcile did not succeed; retried with backoff unless ``terminal``."""

    reason: str
    terminal: bool


Result = Done | Wait | Failed


@dataclass(frozen=True)
class ChildManifest:
    """An object that its owner wants to exist."""

    key: Key
    spec: dict[str, Any]
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
