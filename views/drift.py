"""The drift of an experiment: curves of its anchors, half-lives, and the grid of temperatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from loopscope.specs.artifacts.drift import CURVE, DRIFT, WANDER_GRID, Drift, DriftOutcome
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import count

ASKING = (
    "the spec has no drift. Add the line `drift: {}` to the experiment's spec and run it once more "
    "(`loopscope run FILE`): it needs steering, and makes nothing else again"
)
"""What to do where there is none."""


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class CurvePoint:
    """An anchor's mean effects at a distance; ``again``: it was repeated behind the filler."""

    anchor: str
    distance: int
    again: bool
    kl: Mean
    concept: Mean


@dataclass(frozen=True)
class GridCell:
    """An anchor at a temperature; ``gain`` is in probability of a concept token."""

    anchor: str
    temperature: float
    wander: Mean
    surprisal: float
    concept: Mean
    gain: Mean


@dataclass(frozen=True)
class DriftView:
    """What is known of a drift; ``problem`` is why there is none."""

    problem: str = ""
    told: Drift | None = None
    curve: Sequence[CurvePoint] = field(default_factory=tuple)
    grid: Sequence[GridCell] = field(default_factory=tuple)


def drift(view: ExperimentView) -> DriftView:
    """Return the drift of an experiment, or why there is none. Raises Corrupt."""
    stage = view.stage("drift")
    if not stage.available:
        return DriftView(stage.problem if "drift" in view.stages else ASKING)
    curve = [
        CurvePoint(
            str(row.anchor),
            int(row.distance),
            bool(row.again),
            Mean(row.kl, row.kl_low, row.kl_high),
            Mean(row.concept, row.concept_low, row.concept_high),
        )
        for row in stage.table(CURVE).itertuples()
    ]
    grid = [
        GridCell(
            str(row.anchor),
            float(row.temperature),
            Mean(row.wander, row.wander_low, row.wander_high),
            float(row.surprisal),
            Mean(row.concept, row.concept_low, row.concept_high),
            Mean(row.gain, row.gain_low, row.gain_high),
        )
        for row in stage.table(WANDER_GRID).itertuples()
    ]
    return DriftView("", stage.document(DRIFT), tuple(curve), tuple(grid))


def half_life_words(outcome: DriftOutcome) -> str:
    """Return a half-life with its interval in words: tokens, *not reached*, or *no effect*."""
    if outcome["fade"] == "no effect":
        return "no effect to be halved"
    low, high = outcome["half_life_low"], outcome["half_life_high"]
    bounds = f"({_tokens(low)} to {_tokens(high)})"
    return f"{_tokens(outcome['half_life'])} {bounds}"


def _tokens(value: float | None) -> str:
    return "not reached" if value is None else count(round(value))
