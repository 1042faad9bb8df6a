"""Settings of the server: what it may do, and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

LOOPBACK = "127.0.0.1"
PORT = 8471


@dataclass(frozen=True)
class ServerSettings:
    """What a server may do, and its limits."""

    writable: bool = False
    folder: Path = field(default_factory=Path.cwd)
    """Where paths in the objects of requests begin, as for ``apply -f -``."""
    root: Path = field(default_factory=Path.cwd)
    """Text files that objects of requests name must lie below it."""
    poll_seconds: float = 0.2
    """How often the change log is looked at."""
    bookmark_seconds: float = 30.0
    watchers_max: int = 1000
    body_bytes_max: int = 4 * 1024 * 1024
    body_seconds_max: float = 10.0
    head_seconds_max: float = 10.0
    """A connection that has not sent a whole request head by then is closed."""
    send_seconds_max: float = 20.0
    """A client that takes nothing for so long is dropped."""
    connections_max: int = 1200
    threads_max: int = 8
