"""Leader election: standing by beside another controller, and taking over when it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import structlog

from loopscope.controller.clock import SystemClock
from loopscope.controller.endpoint.health import Health
from loopscope.controller.runtime import (
    AnotherController,
    Runtime,
    measured,
    running_controller,
)
from loopscope.controller.settings import Settings
from loopscope.state.folder import StateFolder

if TYPE_CHECKING:
    from loopscope.controller.endpoint.answers import Endpoint

log = structlog.get_logger("controller")

POLL_SECONDS = 0.5
"""How often a standby tries the lock, which the system releases when its holder dies."""


def leading(
    state: StateFolder, settings: Settings, stop: threading.Event, wake: threading.Event
) -> Iterator[Runtime]:
    """Yield a running controller once, as soon as no other controls; nothing if stopped before."""
    health = Health(SystemClock())
    with measured(health, settings) as endpoint:
        yield from _leading(state, settings, stop, wake, health, endpoint)


def _leading(
    state: StateFolder,
    settings: Settings,
    stop: threading.Event,
    wake: threading.Event,
    health: Health,
    endpoint: Endpoint | None,
) -> Iterator[Runtime]:
    standing_by = False
    while not stop.is_set():
        try:
            with running_controller(state, settings, wake, health, endpoint) as runtime:
                if standing_by:
                    log.info("took over")
                yield runtime
                return
        except AnotherController as other:
            if not standing_by:
                log.info("standing by", why=str(other))
            standing_by = True
            stop.wait(POLL_SECONDS)
