"""The content of a plan, without pydantic and tables: planning what is unchanged is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from loopscope.specs.json_values import Json
from loopscope.specs.keys import Key
from loopscope.state.db.objects import Outcome

StageState = Literal["cached", "to do", "unknown", "queued", "running", "no work", "stalled"]


@dataclass(frozen=True)
class FieldChange:
    """One field that an apply would change; None stands for *not there*."""

    field: str
    before: Json
    after: Json
    is_default: bool = False
    """Not set by the file: Loopscope's default has changed since the last apply."""


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
    memory: int | None = None
    """Bytes of memory of its own that its worker will take above the model."""
    basis: str = ""
    took: float | None = None
    """Seconds that the artifact took which is there already; ``seconds`` is what was foreseen."""
    discards_seconds: float = 0.0
    rule: str | None = None
    """Which rule changed since the work was made on which it rests, after an upgrade."""


@dataclass(frozen=True)
class Planned:
    """All that an apply would do, and everything that was looked at to decide it."""

    objects: tuple[PlannedObject, ...]
    stages: tuple[PlannedStage, ...]
    prune: tuple[Key, ...] = ()
    observed: dict[Key, str] = field(default_factory=dict)

    @property
    def discards_seconds(self) -> float:
        """Seconds of finished work that nothing would rest on any more."""
        return sum(stage.discards_seconds for stage in self.stages)

    @property
    def needs_confirmation(self) -> bool:
        """Whether finished work would be made again because Loopscope changed, not an edit."""
        return bool(self.of_older_rules or self.of_older_defaults)

    @property
    def of_older_rules(self) -> list[PlannedStage]:
        """The stages that would run again because a rule changed."""
        return [stage for stage in self.stages if stage.rule is not None]

    @property
    def of_older_defaults(self) -> list[PlannedObject]:
        """The objects of which work would be discarded because a default changed."""
        losing = {stage.root for stage in self.stages if stage.discards_seconds > 0}
        return [
            item
            for item in self.objects
            if item.key in losing and any(change.is_default for change in item.changes)
        ]

    def of(self, *states: StageState) -> list[PlannedStage]:
        """Return the stages in any of these states."""
        return [stage for stage in self.stages if stage.state in states]
