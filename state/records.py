"""Frozen records of what the store holds. No SQLAlchemy here: pure code reads these."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from loopscope.specs.keys import BLINDED_REASON, PROTECT_ANNOTATION, Key
from loopscope.specs.status import WORD_BY_REASON, Status
from loopscope.state.share import Share

if TYPE_CHECKING:
    from loopscope.specs.payloads.observed import ObservedDictionary, ObservedModel

WAITS_FOR_SPACE = ("DiskFull", "LowDiskSpace")
"""Reasons of pending jobs that wait for free space: found none, or held back below the floor."""

UNAVAILABLE = "InputUnavailable"
"""Reason of an input that was asked for many times without an answer; it may still come."""
UNPLACEABLE = "Unplaceable"
"""Reason of a pending job that no node could hold, however idle all of them were."""
CODE_CHANGED = "CodeChanged"
"""Reason of a pending job that no worker may run before the controller was started again."""

PREEMPTED = "Preempted"
"""Reason of a pending job that made room for another one between two shards."""

OTHER_KIND = "OtherKind"
"""Reason of a pending share that came to a worker of another kind than its shards' makers."""

RULES_CHANGED = "RulesChanged"
"""Reason of what rests on work of older rules, and of what must wait for its release."""

CANCELLED = "Cancelled"
"""Reason of a job that was cancelled by hand: it is not queued again by itself."""

JobState = Literal["pending", "running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True)
class ObjectRecord:
    """A stored object. ``spec`` is canonical JSON; times are Unix seconds."""

    key: Key
    uid: str
    generation: int
    resource_version: int
    spec: dict[str, Any]
    status: Status
    creation_timestamp: float
    deletion_timestamp: float | None = None
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    owner: Key | None = None
    owner_uid: str | None = None
    wanted_digest: str | None = None

    @property
    def ready(self) -> bool:
        """Whether the object is Ready for its current generation."""
        return self.status.is_true("Ready", self.generation)

    @property
    def stalled(self) -> bool:
        """Whether a human must act, for the current generation."""
        return self.status.is_true("Stalled", self.generation)

    @property
    def is_protected(self) -> bool:
        """Whether the object itself carries the annotation that protects its finished work."""
        return self.annotations.get(PROTECT_ANNOTATION) == "true"

    @property
    def stage_word(self) -> str:
        """One word for how far the object is; Skipped and Blinded are Ready without an artifact."""
        ready = self.status.condition("Ready")
        if ready is None or self.status.observed_generation != self.generation:
            return "Pending"
        if self.ready and self.status.is_of_older_rules:
            return "Outdated"
        if self.ready and self.status.artifact is None:
            return BLINDED_REASON if ready.reason == BLINDED_REASON else "Skipped"
        if self.ready:
            return "Ready"
        return "Stalled" if self.stalled else WORD_BY_REASON.get(ready.reason, "Waiting")


class ObjectText(NamedTuple):
    """A stored object whose parts are the JSON text that is stored; times are Unix seconds."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: int
    spec: str
    status: str
    labels: str
    annotations: str
    finalizers: str
    creation_timestamp: float
    deletion_timestamp: float | None
    owner_kind: str | None
    owner_name: str | None
    owner_uid: str | None
    wanted_digest: str | None

    @staticmethod
    def of(record: ObjectRecord) -> ObjectText:
        """Return a record with its parts as text."""
        owner = record.owner
        return ObjectText(
            *record.key,
            record.uid,
            record.generation,
            record.resource_version,
            json.dumps(record.spec),
            json.dumps(record.status.to_json()),
            json.dumps(record.labels),
            json.dumps(record.annotations),
            json.dumps(record.finalizers),
            record.creation_timestamp,
            record.deletion_timestamp,
            owner.kind if owner else None,
            owner.name if owner else None,
            record.owner_uid,
            record.wanted_digest,
        )

    @property
    def key(self) -> Key:
        """The object's name."""
        return Key(self.kind, self.namespace, self.name)

    @property
    def owner(self) -> Key | None:
        """The name of its owner, which is in the same namespace."""
        if self.owner_kind is None or self.owner_name is None:
            return None
        return Key(self.owner_kind, self.namespace, self.owner_name)

    @property
    def record(self) -> ObjectRecord:
        """The same with its parts as values."""
        return ObjectRecord(
            self.key,
            self.uid,
            self.generation,
            self.resource_version,
            json.loads(self.spec),
            Status.from_json(json.loads(self.status)),
            self.creation_timestamp,
            self.deletion_timestamp,
            json.loads(self.labels),
            json.loads(self.annotations),
            tuple(json.loads(self.finalizers)),
            self.owner,
            self.owner_uid,
            self.wanted_digest,
        )


def edition_of(record: ObjectRecord | None) -> str:
    """Return what another edit of an object makes another, and no status; of none, "".

    It covers the incarnation, the generation of the spec, and labels and annotations.
    """
    if record is None:
        return ""
    metadata = json.dumps(record.labels) + json.dumps(record.annotations)
    return edition(record.uid, record.generation, metadata)


def edition(uid: str, generation: int, metadata: str) -> str:
    """Return the same from columns; ``metadata`` are labels and annotations as they are stored."""
    return f"{uid}@{generation}:{hashlib.sha256(metadata.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class AppliedRecord:
    """What the last apply asked of an object. ``fields`` maps each spec field to a digest."""

    key: Key
    uid: str
    manager: str
    fields: dict[str, str]
    labels: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()


class SourceRecord(NamedTuple):
    """A file as it was when it was applied; ``named`` and ``objects`` are JSON text."""

    path: str
    fingerprint: str
    named: str
    objects: str


@dataclass(frozen=True)
class JobHead:
    """One row of the job queue but for its payload, which may hold thousands of prompts."""

    id: int
    stage: str
    digest: str
    state: JobState
    object: Key
    generation: int
    attempts: int
    losses: int
    not_before: float
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    token: int = 0
    worker: str | None = None
    lease_expires_at: float | None = None
    reason: str | None = None
    message: str | None = None
    model: str | None = None
    """Identity of the model that its worker must hold; None when it needs none."""
    code_revision: int | None = None
    """The revision of the stage's code that the digest names; None for jobs of old databases."""
    way: str | None = None
    """Stands for the payload: another value when the same inputs are reached another way."""


@dataclass(frozen=True)
class JobRecord(JobHead):
    """One whole row of the job queue, for the worker that runs the job."""

    payload: Mapping[str, object] = field(kw_only=True)


@dataclass(frozen=True)
class Progress:
    """How far a running job is; kept apart from objects so that it raises no version."""

    job_id: int
    phase: str
    done: int
    total: int
    unit: str
    phase_started_at: float
    updated_at: float
    tokens: int | None = None
    """Tokens done in the phase, where the unit is not tokens and they are counted."""


@dataclass(frozen=True)
class Wanting:
    """An object that wants a job's artifact, with its annotations and its owner's."""

    key: Key
    owner: Key | None = None
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class QueuedJob:
    """An active job as the queue sees it: which objects want it, and the model that it needs."""

    id: int
    stage: str
    state: JobState
    object: Key
    worker: str | None
    not_before: float
    created_at: float
    started_at: float | None
    losses: int
    """Workers lost since it last got on."""
    token: int
    reason: str | None
    message: str | None
    model: str | None
    makes_room_for: int | None
    """The job for which it was asked to make room, or made it."""
    wanted_by: tuple[Wanting, ...]
    share: Share | None = None
    """Of which other job it makes shards."""


@dataclass(frozen=True)
class Preemption:
    """A job that is to make room for ``by_job``, or made it and waits; ``words`` say for whom."""

    job_id: int
    by_job: int
    words: str
    asked_at: float


@dataclass(frozen=True)
class LeaderRecord:
    """The process that controls a folder (``<pid>@<start time>``), and its settings as JSON."""

    process: str
    started_at: float
    settings: Mapping[str, object]


@dataclass(frozen=True)
class RevisionRecord:
    """A spec that an object had until ``replaced_at`` (Unix seconds)."""

    generation: int
    spec: Mapping[str, Any]
    replaced_at: float


@dataclass(frozen=True)
class WorkerRecord:
    """A worker, where it computes, the model that it holds, and its kind (``worker.makers``)."""

    name: str
    device: str
    model: str | None
    maker: str | None = None


@dataclass(frozen=True)
class FileEntry:
    """One payload file of an artifact."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class ArtifactRecord:
    """A published artifact. ``content_digest`` covers its payload files only."""

    stage: str
    digest: str
    content_digest: str
    files: dict[str, FileEntry]
    metrics: Mapping[str, object]
    created_at: float

    @property
    def bytes(self) -> int:
        """Size of the payload in bytes."""
        return sum(entry.bytes for entry in self.files.values())


@dataclass(frozen=True)
class InputRecord:
    """What a model or dictionary reference resolved to, or why it did not."""

    reference_digest: str
    kind: Literal["model", "dictionary"]
    reference: Mapping[str, object]
    facts: ObservedModel | ObservedDictionary | None
    reason: str | None
    message: str | None
    terminal: bool
    observed_at: float

    @property
    def model(self) -> ObservedModel:
        """The facts of a model that was found."""
        assert self.kind == "model" and self.facts is not None
        return cast("ObservedModel", self.facts)

    @property
    def dictionary(self) -> ObservedDictionary:
        """The facts of a dictionary that was found."""
        assert self.kind == "dictionary" and self.facts is not None
        return cast("ObservedDictionary", self.facts)


@dataclass(frozen=True)
class EventRecord:
    """Something that happened to an object; repeats are counted, not listed."""

    key: Key
    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    count: int
    first_seen_at: float
    last_seen_at: float


@dataclass(frozen=True)
class ChangeRecord:
    """One line of the change log."""

    resource_version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    key: Key
