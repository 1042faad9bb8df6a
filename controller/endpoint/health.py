"""Health of a controller's process: does it live, and can it do its work now.

The words of Kubernetes: a process that is not alive is restarted, one that is not ready is looked
at by a human. Nothing here changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from loopscope.controller.clock import Clock
from loopscope.controller.controller import Controller
from loopscope.controller.jobs.limits import below_floor
from loopscope.state.db import objects
from loopscope.state.failures import Failure

ALIVE_SECONDS_MAX = 300.0
"""A step takes less than a second, and waits for its database a minute at most: behind this the
loop is stuck, and only a new process helps."""


class Check(NamedTuple):
    """One thing that was looked at; ``trouble`` is empty when it is well."""

    name: str
    trouble: str = ""


@dataclass
class Health:
    """What a process says of itself; it stands by until ``leads``."""

    clock: Clock
    _controller: Controller | None = None
    _stepped_at: float = field(default=0.0)

    def leads(self, controller: Controller) -> None:
        """Take note of who controls from now on."""
        self._stepped_at = self.clock.elapsed()
        self._controller = controller

    def steps_aside(self) -> None:
        """Take note that this process controls no longer."""
        self._controller = None

    def stepped(self) -> None:
        """Take note that the loop has come round."""
        self._stepped_at = self.clock.elapsed()

    @property
    def role(self) -> str:
        """``leading`` or ``standing by``."""
        return "standing by" if self._controller is None else "leading"

    def alive(self) -> list[Check]:
        """Return whether the loop still comes round."""
        silent = self.clock.elapsed() - self._stepped_at
        stuck = self._controller is not None and silent > ALIVE_SECONDS_MAX
        return [Check("loop", f"no step for {silent:.0f} seconds" if stuck else "")]

    def ready(self) -> list[Check]:
        """Return what is in the way of work: the loop, the database, the disk, the last step."""
        controller = self._controller
        if controller is None:
            return self.alive()
        low = below_floor(controller.free_bytes(), controller.settings.free_space_floor_bytes)
        return [
            *self.alive(),
            Check("database", _trouble_of_database(controller)),
            Check("disk", low or ""),
            Check("step", controller.trouble or ""),
        ]


def _trouble_of_database(controller: Controller) -> str:
    try:
        with controller.state.database.read() as connection:
            objects.resource_version(connection)
    except Failure as failure:
        return str(failure)
    return ""
