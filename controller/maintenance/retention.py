"""Retention by a controller: what was unneeded for long enough goes to the trash."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from loopscope.controller.clock import Clock, SystemClock
from loopscope.state.artifacts.collection import (
    RetentionPolicy,
    Since,
    collect,
    forget_missing,
    take_stock,
)
from loopscope.state.artifacts.reachability import Reachability
from loopscope.state.artifacts.store import Stored
from loopscope.state.clock_reading import ClockReading
from loopscope.state.failures import PASSING
from loopscope.state.folder import StateFolder

log = structlog.get_logger("retention")

LOOK_SECONDS = 600.0
"""How often a controller looks."""


@dataclass
class Retention:
    """Collects by a policy. What it remembers ends with the process: then the grace begins anew."""

    state: StateFolder
    policy: RetentionPolicy
    clock: Clock = field(default_factory=SystemClock)
    _seen_since: dict[tuple[str, str], float] = field(default_factory=dict)
    """By ``Clock.elapsed``: a date that is set ahead makes nothing old."""
    _next_look_at: float = 0.0
    _first: ClockReading = field(init=False)
    _reachability: Reachability = field(init=False)

    def __post_init__(self) -> None:
        self._first = self.clock.reading()
        self._reachability = Reachability(self.state.artifacts, self.policy.keep_last)

    def run_if_due(self) -> list[Stored]:
        """Collect what is due; return what went to the trash. Trouble that may pass is logged."""
        if self.clock.elapsed() < self._next_look_at:
            return []
        self._next_look_at = self.clock.elapsed() + LOOK_SECONDS
        try:
            return self._run(self.clock.reading())
        except PASSING as trouble:
            log.error("cannot collect now; trying again", trouble=str(trouble))
            return []

    def _run(self, clock: ClockReading) -> list[Stored]:
        now, since = clock.now, self._since(clock)
        stock = take_stock(self.state, self._reachability, self.policy, now, since)
        seen = {(thing.kind, thing.name) for thing in (*stock.unneeded, *stock.in_grace)}
        self._seen_since = {key: since for key, since in self._seen_since.items() if key in seen}
        gone = collect(self.state, self._reachability, stock.unneeded, now)
        forget_missing(self.state, self._reachability)
        set_ahead = max(0.0, clock.offset - self._first.offset)
        self.state.artifacts.empty_trash(now - set_ahead - self.policy.trash_seconds)
        if gone:
            size = sum(thing.bytes for thing in gone)
            log.info("moved to the trash", things=len(gone), bytes=size)
        return gone

    def _since(self, clock: ClockReading) -> Since:
        def since(thing: Stored) -> float:
            first = self._seen_since.setdefault((thing.kind, thing.name), clock.elapsed)
            first_seen_at = clock.offset + first
            known = thing.since <= clock.now  # else the clock was set back since
            return max(first_seen_at, thing.since) if known else first_seen_at

        return since
