"""What a plan says. No pydantic and no tables here: a plan of what did not change is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from loopscope.specs.keys import Key
from loopscope.state.objects import Outcome

StageState = Literal["cached", "to do", "unknown", "queued", "running", "no work", "stalled"]


@dataclass(frozen=True)
class FieldChange:
    """One field that an apply would change; None stands for *not there*."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Applied:
    """What became of one object."""

    key: Key
    outcome: Outcome


@dataclass(frozen=True)
class PlannedObject:
    """An object of the files and what would become of it."""

    key: Key
    outcome: Outcome
    changes: tuple[FieldChange, ...] = ()


@dataclass(frozen=True)
class PlannedStage:
    """A stage and whether it would run. ``until``: what has to be known or made first."""

    key: Key
    root: Key
    state: StageState
    why: tuple[str, ...] = ()
    until: str | None = None
    digest: str | None = None
    seconds: float | None = None
    bytes: int | None = None
    basis: str = ""
    discards_seconds: float = 0.0


@dataclass(frozen=True)
class Planned:
    """All that an apply would do, and everything that was looked at to say so."""

    objects: tuple[PlannedObject, ...]
    stages: tuple[PlannedStage, ...]
    prune: tuple[Key, ...] = ()
    observed: dict[Key, str] = field(default_factory=dict)

    @property
    def discards_seconds(self) -> float:
        """Seconds of finished work that nothing would rest on any more."""
        return sum(stage.discards_seconds for stage in self.stages)

    def of(self, *states: StageState) -> list[PlannedStage]:
        """Return the stages in any of these states."""
        return [stage for stage in self.stages if stage.state in states]
