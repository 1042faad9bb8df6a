"""Figures of a state at one moment, for metrics."""

from __future__ import annotations

from loopscope.controller.controller import Controller
from loopscope.controller.metrics import Standing
from loopscope.state.db import job_queue, roots
from loopscope.state.failures import TransientFailure


def standing_of(controller: Controller) -> Standing:
    """Return what is true now; what cannot be read now is left out."""
    free, floor = controller.free_bytes(), controller.settings.free_space_floor_bytes
    try:
        with controller.state.database.read() as connection:
            since = job_queue.oldest_pending(connection)
            waited = 0.0 if since is None else max(0.0, controller.clock.now() - since)
            return Standing(
                jobs=job_queue.counts(connection),
                objects=roots.counted_by_ready(connection),
                stalled=roots.counted_stalled(connection),
                oldest_pending_seconds=waited,
                free_bytes=free,
                free_bytes_floor=floor,
            )
    except TransientFailure:  # the next scrape looks again
        return Standing(free_bytes=free, free_bytes_floor=floor)
