"""Effects of two steerings, held against each other: equivalence of each primary contrast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from loopscope.numerics.replication.effect import (
    Equivalence,
    Estimate,
    Floats,
    Word,
    paired_equivalence,
    unpaired_equivalence,
)
from loopscope.numerics.verdict.cells import ScoredCells
from loopscope.numerics.verdict.decision import PRIMARY
from loopscope.reconcilers.registry import OWNED_BY_KIND
from loopscope.reconcilers.steering import scored_openings
from loopscope.specs.artifacts.steering import SCORES, VERDICT
from loopscope.specs.pipeline import NODES
from loopscope.specs.spec_json import SteeringJson
from loopscope.views.replication.run import Run
from loopscope.views.scored_cells import scored_cells

SHARED_MIN = 2
"""Openings that two runs must share for a paired comparison."""


@dataclass(frozen=True)
class _Scored:
    """A steering's spec, its cells, and the text of each opening in their order."""

    cells: ScoredCells
    texts: tuple[str, ...]

    @property
    def unit(self) -> float:
        """What one text's hit weighs in an opening's score."""
        return 1.0 / (self.cells.samples * max(1, len(self.cells.common_strengths())))


def equivalences(first: Run, second: Run, margin: float) -> tuple[Equivalence, ...]:
    """Return each primary contrast in two runs; none where one of them has no scores.

    Paired over the openings that both have; where they share none, from both intervals. Raises
    Corrupt.
    """
    scored = [_scored(run) for run in (first, second)]
    if scored[0] is None or scored[1] is None:
        return ()
    shared = [text for text in scored[0].texts if text in set(scored[1].texts)]
    if len(shared) < SHARED_MIN:
        return _unpaired(first, second, margin)
    one, two = (_contrasts(run, shared) for run in (scored[0], scored[1]))
    unit = max(scored[0].unit, scored[1].unit)
    group = _groups(scored[0], shared)
    return tuple(
        paired_equivalence(name, one[name], two[name], margin, unit=unit, group=group)
        for name in one
        if name in two
    )


def word_of(effects: Sequence[Equivalence]) -> Word:
    """Return what several contrasts say together: one that differs is enough to differ."""
    found = {effect.word for effect in effects}
    if "another effect" in found:
        return "another effect"
    return "same effect" if found == {"same effect"} else "not known"


def margin_of(run: Run) -> float | None:
    """Return the smallest practical difference that a run declares, None without steering."""
    steering = run.spec.get("steering")
    if not isinstance(steering, Mapping):
        return None
    return float(cast("Any", steering)["minDifference"])


def _scored(run: Run) -> _Scored | None:
    stage = run.stages.get("steering")
    scores = stage.table(SCORES) if stage is not None else None
    if scores is None:
        return None
    experiment: Any = run.spec
    spec = cast(SteeringJson, OWNED_BY_KIND[NODES["steering"].kind](experiment, "steering"))
    text_of = {one["id"]: one["text"] for one in scored_openings(spec)}
    ids = sorted(scores["prompt_id"].unique())
    if not set(ids) <= set(text_of):
        return None
    cells = scored_cells(scores, spec, outcomes=["concept"])
    return _Scored(cells, tuple(text_of[one] for one in ids))


def _contrasts(run: _Scored, texts: list[str]) -> dict[str, Floats]:
    """Return each primary contrast [openings] over these openings."""
    arms = run.cells.by_arm(run.cells.outcomes["concept"])
    places = _places(run, texts)
    return {
        f"{a}-{b}": np.asarray((arms[a].mean(axis=1) - arms[b].mean(axis=1))[places])
        for a, b in PRIMARY
        if {a, b} <= set(arms)
    }


def _places(run: _Scored, texts: list[str]) -> list[int]:
    number = {text: place for place, text in enumerate(run.texts)}
    return [number[text] for text in texts]


def _groups(run: _Scored, texts: list[str]) -> Any:
    return None if run.cells.group is None else run.cells.group[_places(run, texts)]


def _unpaired(first: Run, second: Run, margin: float) -> tuple[Equivalence, ...]:
    one, two = (_estimates(run) for run in (first, second))
    return tuple(
        unpaired_equivalence(name, one[name], two[name], margin) for name in one if name in two
    )


def _estimates(run: Run) -> dict[str, Estimate]:
    verdict = run.stages["steering"].document(VERDICT)
    names = [f"{a}-{b}" for a, b in PRIMARY]
    return {
        found["contrast"]: Estimate(found["estimate"], found["low"], found["high"])
        for found in (verdict["contrasts"] if verdict else ())
        if found["contrast"] in names and found["low"] is not None and found["high"] is not None
    }
