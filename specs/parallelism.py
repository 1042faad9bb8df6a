"""Parallelism of a job as people write it: so many workers make its shards at once."""

from __future__ import annotations

WORKERS_MAX = 64
"""As many as slots of one device."""


def worker_count(text: str) -> int | None:
    """Return the number that a text names, None where it names none from 1 to ``WORKERS_MAX``."""
    is_number = text.isascii() and text.isdigit() and not text.startswith("0")
    return int(text) if is_number and len(text) < 3 and int(text) <= WORKERS_MAX else None
