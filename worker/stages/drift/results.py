"""The tables of a drift: curves with bands, half-lives, tests, and the grid of temperatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.drift.curve import Effect, Fade, HalfLife, band, fades, half_life
from loopscope.numerics.statistics.paired import paired_contrast, rate_interval, without_gaps
from loopscope.specs.artifacts.drift import (
    CURVE,
    POINTS,
    WANDER_GRID,
    WANDER_SAMPLES,
    DriftOutcome,
)
from loopscope.specs.payloads.drift import ANCHORS
from loopscope.worker.stages.drift.distances import Point
from loopscope.worker.stages.drift.sampling import WanderedSample
from loopscope.worker.stages.evidence.stage import write_rows

Floats = NDArray[np.float64]
OUTCOMES: Mapping[str, float | None] = {"kl": None, "concept": 1.0}
"""Outcomes, and the largest difference that one can have."""
NOT_REACHED = HalfLife(None, None, None)


class Curves:
    """The points of all anchors as arrays [openings, distances], by anchor and outcome."""

    def __init__(self, points: Sequence[Point], distances: Sequence[int], openings: int) -> None:
        self.distances = tuple(distances)
        there = {point["anchor"] for point in points}
        self.anchors = [anchor for anchor in ANCHORS if anchor in there]
        self._at: dict[tuple[str, str, bool], Floats] = {}
        self.filler = np.zeros(openings, dtype=np.int64)
        for point in points:
            self.filler[point["opening"]] = point["filler"]
            values = {"kl": point["kl"], "concept": point["concept"] - point["concept_unanchored"]}
            place = self.distances.index(point["distance"])
            for outcome, value in values.items():
                key = (point["anchor"], outcome, point["again"])
                if key not in self._at:
                    self._at[key] = np.full((openings, len(self.distances)), np.nan)
                self._at[key][point["opening"], place] = value

    def of(self, anchor: str, outcome: str) -> Floats:
        """Return an anchor's effects [openings, distances]."""
        return self._at[anchor, outcome, False]

    def again(self, anchor: str, outcome: str) -> Floats | None:
        """Return the effects [openings] of the anchor behind the longest filler, if it was put."""
        found = self._at.get((anchor, outcome, True))
        return None if found is None else found[:, -1]


def outcomes_of(curves: Curves) -> list[DriftOutcome]:
    """Return half-lives and tests of all anchors in both outcomes, corrected together."""
    named = [(anchor, outcome) for outcome in OUTCOMES for anchor in curves.anchors]
    effects = [curves.of(*one) for one in named]
    tested = fades(
        [
            Effect(own[:, 0], own[:, -1], OUTCOMES[outcome])
            for own, (_, outcome) in zip(effects, named, strict=True)
        ],
        curves.filler,
    )
    return [_outcome(curves, *one, fade) for one, fade in zip(named, tested, strict=True)]


def _outcome(curves: Curves, anchor: str, outcome: str, fade: Fade) -> DriftOutcome:
    effects, span = curves.of(anchor, outcome), OUTCOMES[outcome]
    far = band(effects[:, -1], curves.filler, span=span)
    half = NOT_REACHED
    if fade.effect.low > 0:
        half = half_life(curves.distances, effects, curves.filler)
    repeated = curves.again(anchor, outcome)
    again = None if repeated is None else band(repeated, curves.filler, span=span)
    return {
        "anchor": anchor,
        "outcome": outcome,
        "near": fade.effect.estimate,
        "near_low": fade.effect.low,
        "near_high": fade.effect.high,
        "far": far.estimate,
        "far_low": far.low,
        "far_high": far.high,
        "difference": fade.difference.estimate,
        "low": fade.difference.low,
        "high": fade.difference.high,
        "p": fade.p,
        "p_holm": fade.p_holm,
        "fade": fade.word,
        "half_life": half.estimate,
        "half_life_low": half.low,
        "half_life_high": half.high,
        "again": None if again is None else again.estimate,
        "again_low": None if again is None else again.low,
        "again_high": None if again is None else again.high,
    }


def write_points(out: Path, points: Sequence[Point], ids: Sequence[str]) -> None:
    """Write every point, by anchor, then distance."""
    order: dict[str, int] = {name: place for place, name in enumerate(ANCHORS)}
    ranked = sorted(
        points,
        key=lambda p: (order[p["anchor"]], p["again"], p["distance"], p["opening"]),
    )
    names = [column.name for column in POINTS.columns[1:]]
    rows = [(ids[p["opening"]], *(dict(p)[name] for name in names)) for p in ranked]
    write_rows(out, POINTS, rows)


def write_curves(out: Path, curves: Curves) -> None:
    """Write the mean of each anchor at each distance, and behind the longest filler."""
    rows = []
    for anchor in curves.anchors:
        kl, concept = (curves.of(anchor, outcome) for outcome in OUTCOMES)
        columns = [
            (distance, False, kl[:, place], concept[:, place])
            for place, distance in enumerate(curves.distances)
        ]
        repeated = [curves.again(anchor, outcome) for outcome in OUTCOMES]
        if repeated[0] is not None and repeated[1] is not None:
            columns.append((curves.distances[-1], True, repeated[0], repeated[1]))
        for distance, again, *both in columns:
            bands = [
                band(values, curves.filler, span=span)
                for values, span in zip(both, OUTCOMES.values(), strict=True)
            ]
            numbers = [number for one in bands for number in (one.estimate, one.low, one.high)]
            rows.append((anchor, distance, again, *numbers, len(curves.filler)))
    write_rows(out, CURVE, rows)


def write_samples(
    out: Path, samples: Sequence[WanderedSample], ids: Sequence[str], group: Floats | None
) -> None:
    """Write every sample, and the grid of their means; ``group`` is that of the openings."""
    names = [column.name for column in WANDER_SAMPLES.columns[1:]]
    rows = [(ids[one["opening"]], *(dict(one)[name] for name in names)) for one in samples]
    write_rows(out, WANDER_SAMPLES, rows)
    cells: dict[tuple[str, float], list[WanderedSample]] = {}
    for one in samples:
        cells.setdefault((one["anchor"], one["temperature"]), []).append(one)
    grid = []
    for (anchor, heat), own in cells.items():
        grid.append((anchor, heat, *_cell(own, cells["none", heat], group), len(own)))
    write_rows(out, WANDER_GRID, grid)


def _cell(
    own: Sequence[WanderedSample], unanchored: Sequence[WanderedSample], group: Floats | None
) -> list[float]:
    """Return the means of a cell with their intervals, in the order of the grid's columns."""
    groups = None if group is None else group.astype(np.int64)
    wander, surprisal, concept, mass = (
        np.array([dict(one)[name] for one in own], dtype=np.float64)
        for name in ("wander", "surprisal", "concept", "concept_mass")
    )
    before = np.array([one["concept_mass"] for one in unanchored], dtype=np.float64)
    nothing = np.zeros(len(own))
    far = without_gaps(paired_contrast("wander", wander, nothing, group=groups, span=None))
    gain = paired_contrast("gain", mass, before, group=groups)
    low, high = rate_interval(concept[:, None], group=groups)
    return [
        far.estimate, far.low, far.high, float(surprisal.mean()), float(concept.mean()), low, high,
        gain.estimate, gain.low, gain.high,
    ]  # fmt: skip
