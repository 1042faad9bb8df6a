"""The job queue as it stands: who controls, what is taken, what waits for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from loopscope.specs.keys import Key
from loopscope.state.records import CODE_CHANGED, JobHead, LeaderRecord, Progress
from loopscope.state.share import Share


@dataclass(frozen=True)
class Usage:
    """How much of something limited is taken; bytes or slots."""

    taken: int
    total: int


@dataclass(frozen=True)
class Starts:
    """Job starts in the last minute, and how many there may be; ``burst`` at once, if limited."""

    last_minute: int
    per_minute: int
    burst: int | None


@dataclass(frozen=True)
class Waiting:
    """Why a job waits, as one word and as a text; ``until`` when that is known (Unix seconds).

    Without words it is ``Next``, or ``Controller`` where no controller runs.
    """

    reason: str
    message: str | None = None
    until: float | None = None


@dataclass(frozen=True)
class JobInQueue:
    """A job with its priority class, its progress, and what it waits for if it is pending."""

    job: JobHead
    priority: str | None
    progress: Progress | None
    waiting: Waiting | None
    makes_room_for: str | None = None
    """Whom a running job was asked to make room for."""
    share: Share | None = None
    """Of which other job it makes shards."""


@dataclass(frozen=True)
class Upstream:
    """An object without a job, because what it rests on is not there yet; ``since`` when."""

    key: Key
    reason: str
    message: str
    since: float


@dataclass(frozen=True)
class QueueView:
    """Everything that ``loopscope queue`` shows, read in one transaction at ``now``."""

    now: float
    leader: LeaderRecord | None
    """Who controls; None when no controller runs."""
    slots: Mapping[str, Usage]
    """By device."""
    starts: Starts
    memory: Mapping[str, Usage]
    """Bytes by device; a device without a budget is missing."""
    quotas: Mapping[str, Mapping[str, Usage]]
    """By namespace what its quota limits: ``slots``, and ``requests.storage`` in bytes."""
    paused: Mapping[str, float]
    """Since when each scope is paused."""
    jobs: tuple[JobInQueue, ...]
    """Running jobs, then the waiting ones in the order in which they are next, then ended ones."""
    upstream: tuple[Upstream, ...]

    @property
    def needs_restart(self) -> bool:
        """Whether a job waits for a controller that knows the files of now."""
        changed = any(one.job.reason == CODE_CHANGED for one in self.jobs)
        return changed and self.leader is not None

    def of_namespace(self, namespace: str) -> QueueView:
        """Return the view with the jobs and objects of one namespace; limits are for all."""
        return replace(
            self,
            jobs=tuple(one for one in self.jobs if one.job.object.namespace == namespace),
            upstream=tuple(one for one in self.upstream if one.key.namespace == namespace),
        )
