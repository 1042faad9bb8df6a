"""The controller's figures, with their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from loopscope.specs.status import ConditionType
from loopscope.state.retry_policy import RetryPolicy

ExecutorName = Literal["processes", "ray"]


SLOTS, STORAGE = "slots", "requests.storage"
"""What a quota may limit: jobs that run at once, and bytes of artifacts that objects rest on."""


@dataclass(frozen=True)
class Limits:
    """What may run at once, and how fast it may start. None means without a limit."""

    job_starts_per_minute: int = 60
    burst: int | None = None
    slots_per_experiment: int | None = None
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    """Budget by device; a device that is missing has none."""
    aging_seconds: float = 600.0
    resource_quotas: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """``hard`` of each namespace that has a quota: ``slots``, and ``requests.storage`` in bytes."""


@dataclass(frozen=True)
class NotificationSettings:
    """A webhook, and the changes of conditions that it is told."""

    url: str
    secret_env: str
    """The environment variable that holds the secret; the secret is written down nowhere."""
    conditions: tuple[ConditionType, ...] = ("Ready", "Stalled")
    kinds: tuple[str, ...] = ()
    """Kinds of objects; without any, all objects that no other owns."""


@dataclass(frozen=True)
class Settings:
    """The settings of a controller. Times are in seconds unless a name has another unit."""

    resync_seconds: float = 10.0
    """How often reality is observed again: artifacts on disk, files, leases."""
    poll_seconds: float = 0.5
    """How often writes of other processes are looked for."""
    lease_seconds: float = 30.0
    """A job whose worker is silent for this long is taken back."""
    progress_timeout_seconds: float = 1800.0
    """A job that reports no progress for this long is stuck, and its worker is ended."""
    job_starts_per_minute: int = 60
    """Job starts in any 60 seconds, counted across restarts."""
    burst: int | None = None
    """Job starts at once; then they are spread evenly. None: as many as in a minute."""
    free_space_floor_bytes: int = 2**30
    """No job starts while less is free where the state folder or its artifacts lie. 1 GiB is more
    than a stage of the examples writes, and leaves the database room to record what happened."""
    slots: int = 1
    """Worker processes, one job each."""
    device: str = "cpu"
    """Where workers compute: ``cpu`` or ``cuda:0``."""
    slots_by_device: Mapping[str, int] = field(default_factory=dict)
    """Worker processes by device, instead of ``slots`` on ``device``."""
    executor: ExecutorName = "processes"
    """What places jobs: processes of this machine, or actors of a Ray cluster."""
    ray_address: str = "auto"
    """The cluster: ``HOST:PORT``, ``auto`` for the one that this machine is part of, ``local`` for
    one that the controller starts on this machine and ends with itself."""
    ray_resources: Mapping[str, float] = field(default_factory=dict)
    """What each slot asks of a node by Ray's names, beside its card and its memory."""
    slots_per_experiment: int | None = None
    """Jobs of one experiment at once; None: no limit."""
    resource_quotas: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What a namespace may hold at most; one that is missing has no quota."""
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    """What jobs may use at once, by device; a device that is missing has no budget."""
    stage_memory_bytes: Mapping[str, int] = field(default_factory=dict)
    """What a job of a stage is taken to use; a stage that is missing uses nothing."""
    stage_parallelism: Mapping[str, int] = field(default_factory=dict)
    """How many workers make the shards of a job of a stage at once; a stage that is missing: 1."""
    priority_classes: Mapping[str, int] = field(
        default_factory=lambda: {"interactive": 144, "high": 6, "normal": 0, "low": -6}
    )
    """Values of the annotation ``loopscope.dev/priority``, in steps of ``aging_seconds``.

    ``interactive`` is worth a day of waiting: what somebody asked goes before what waits, and so
    few may be asked at once that this keeps no one waiting for long."""
    preempting_classes: tuple[str, ...] = ()
    """Classes whose waiting jobs may ask running ones of a lower value to make room."""
    aging_seconds: float = 600.0
    """A job that waited this long is as good as one of the next higher priority."""
    verify_bytes_per_resync: int = 256 * 1024 * 1024
    """Artifact bytes hashed again per resync, round robin."""
    resolve_retry_seconds: float = 30.0
    """How soon an input that could not be resolved is tried again."""
    metrics_port: int | None = None
    """Port on which Prometheus metrics and health are served; None: not at all."""
    metrics_address: str = "127.0.0.1"
    """Address of this machine on which that port is open."""
    stop_at: float | None = None
    """When work stops at the latest (``Clock.elapsed``); None: it goes on. What is under way then
    has the usual grace; a shard that would end later is not begun."""
    notifications: NotificationSettings | None = None
    """Who is told when conditions change; None: nobody."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """Retries of jobs."""

    @property
    def slot_devices(self) -> tuple[str, ...]:
        """The device of each slot."""
        by_device = self.slots_by_device or {self.device: self.slots}
        return tuple(device for device, slots in by_device.items() for _ in range(slots))

    @property
    def limits(self) -> Limits:
        """What decides which job is next."""
        return Limits(
            job_starts_per_minute=self.job_starts_per_minute,
            burst=self.burst,
            slots_per_experiment=self.slots_per_experiment,
            memory_bytes=self.memory_bytes,
            aging_seconds=self.aging_seconds,
            resource_quotas=self.resource_quotas,
        )

    def to_json(self) -> dict[str, object]:
        """Return the settings as a controller announces them to ``loopscope queue``.

        Not to whom it sends notifications: a URL may be a secret by itself.
        """
        return {name: value for name, value in asdict(self).items() if name != "notifications"}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Settings:
        """Read what ``to_json`` wrote; what another version knew is left out."""
        known = {name: data[name] for name in Settings.__dataclass_fields__ if name in data}
        known.pop("retry", None)
        return Settings(**known)
