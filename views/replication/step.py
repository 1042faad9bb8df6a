"""One stage of two runs: whether they agree, and what parted them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loopscope.specs.pipeline import NodeName
from loopscope.views.replication.run import StageRun

State = Literal["same bytes", "same numbers", "different", "missing"]


@dataclass(frozen=True)
class Cause:
    """What parted two runs, by its name, and what shows it."""

    name: str
    evidence: str


@dataclass(frozen=True)
class Step:
    """A stage of two runs: *same bytes*, *same numbers* (but for rounding), *different*, *missing*.

    ``same_work``: both have the same action digest, so that other numbers come of the machine or of
    a defect of the code. ``causes`` are what is known to have parted them here.
    """

    stage: NodeName
    state: State
    words: str
    same_work: bool = False
    causes: tuple[Cause, ...] = ()


def step_of(
    stage: NodeName,
    first: StageRun,
    second: StageRun,
    state: State,
    words: str,
    causes: Sequence[Cause] = (),
) -> Step:
    """Return a step of two runs that both have the stage."""
    return Step(stage, state, words, first.digest == second.digest, tuple(causes))
