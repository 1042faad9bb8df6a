"""The controller's figures, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from state.jobs import RetryPolicy


@dataclass(frozen=True)
class Settings:
    """How a controller behaves. Seconds unless the name says otherwise."""

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
    free_space_floor_bytes: int = 2**30
    """No job starts while less is free where the state folder or its artifacts lie. 1 GiB is more
    than a stage of the examples writes, and leaves the database room to say what happened."""
    slots: int = 1
    """Worker processes, one job each."""
    device: str = "cpu"
    """Where workers compute: ``cpu`` or ``cuda:0``."""
    verify_bytes_per_resync: int = 256 * 1024 * 1024
    """Artifact bytes hashed again per resync, round robin."""
    resolve_retry_seconds: float = 30.0
    """How soon an input that could not be resolved is tried again."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """Retries of jobs."""
