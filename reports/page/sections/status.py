"""The status section: each object with its conditions."""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.specs.status import Condition
from loopscope.state.records import ObjectRecord
from loopscope.views.experiment import ExperimentView


@dataclass(frozen=True)
class StatusRow:
    """One object, and why it has nothing to show; ``record`` is None before it is created."""

    name: str
    record: ObjectRecord | None
    problem: str

    @property
    def ready(self) -> Condition | None:
        """Its Ready condition, if that was ever observed."""
        return self.record.status.condition("Ready") if self.record else None

    @property
    def stale(self) -> bool:
        """Whether what was observed is of an earlier spec."""
        record = self.record
        return record is not None and record.status.observed_generation != record.generation

    @property
    def failed(self) -> bool:
        """Whether it needs a human."""
        return self.record is not None and self.record.stalled

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All that was observed."""
        return self.record.status.conditions if self.record else ()


def status(view: ExperimentView) -> list[StatusRow]:
    """Return one row per object: the experiment, then its stages."""
    stages = view.stages.values()
    return [
        StatusRow("experiment", view.experiment, ""),
        *(StatusRow(stage.name, stage.record, stage.problem) for stage in stages),
    ]
