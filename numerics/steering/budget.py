"""Equal budgets: the strength at which each arm reaches a wanted effect.

Equal norm is not equal disturbance: a random direction of the norm of a decoder row changes the
next token ten to a hundred times as much. So arms are compared at an equal effect, and the
strength that brings it is found per arm. The effect is a mean over texts: the search brackets on a
few of them and ends on all. It is a pure function of the measure and the texts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

TOLERANCE = 0.02
"""Largest accepted relative difference between the effect wanted and the effect measured."""
BRACKET_TEXTS = 4
"""Texts on which strengths are bracketed, where there are more."""
BRACKET_TOLERANCE = 0.1
"""A few texts differ from all of them by about as much, so to be closer there gains nothing."""
PASSES_MAX = 30
PASSES_OVER_ALL_MAX = 3
STEP_MAX = 8.0
"""A strength moves at most by this factor at a time."""
POWER_LIMITS = (0.3, 8.0)


Measure = Callable[[Indices, Floats, Indices], Floats]
"""``measure(cells, strengths, texts)`` returns the effects of some cells, [cells, texts]."""


@dataclass(frozen=True)
class Solution:
    """Per cell the strength and the effects measured at it, NaN where not reached.

    ``effects`` [cells, texts] has a column for each text, in the order of the texts given.
    """

    strength: Floats
    effects: Floats
    passes: int
    passes_over_all: int

    @property
    def effect(self) -> Floats:
        """The mean effect of each cell."""
        return np.asarray(self.effects.mean(axis=1), dtype=np.float64)


@dataclass
class _Search:
    """One cell's bracket: what was too weak, what too strong, and the last trial."""

    wanted: float
    trial: float
    weak: float = 0.0
    weak_effect: float = 0.0
    strong: float = float("inf")
    strong_effect: float = float("inf")
    power: float = 2.0
    """Local law effect ~ strength^power; 2 for small interventions, then as measured."""
    _last: tuple[float, float] | None = None

    def learn(self, effect: float, turn: int) -> None:
        """Take in the effect of the trial and choose the next one."""
        if self._last is not None:
            self._measure_power(effect)
        self._last = (self.trial, effect)
        if effect < self.wanted:
            self.weak, self.weak_effect = self.trial, effect
        else:
            self.strong, self.strong_effect = self.trial, effect
        bracketed = self.weak > 0 and np.isfinite(self.strong)
        halving = bracketed and turn % 3 == 0
        proposed = np.sqrt(self.weak * self.strong) if halving else self._proposed(effect)
        if bracketed and not self.weak < proposed < self.strong:
            proposed = np.sqrt(self.weak * self.strong)
        self.trial = float(np.clip(proposed, self.weak, self.strong))

    def _measure_power(self, effect: float) -> None:
        assert self._last is not None
        strength, before = self._last
        if 0 < before < np.inf and 0 < effect < np.inf and strength != self.trial:
            power = np.log(effect / before) / np.log(self.trial / strength)
            self.power = float(np.clip(power, *POWER_LIMITS))

    def _proposed(self, effect: float) -> float:
        if effect <= 0:
            return self.trial * STEP_MAX
        if not np.isfinite(effect):
            return self.trial / STEP_MAX
        step = (self.wanted / effect) ** (1 / self.power)
        return float(self.trial * np.clip(step, 1 / STEP_MAX, STEP_MAX))


def solve_strengths(
    measure: Measure,
    texts: Indices,
    wanted: Floats,
    start: Floats,
    *,
    strength_max: float,
    tolerance: float = TOLERANCE,
    floor: Floats | None = None,
) -> Solution:
    """Return the strength of each cell whose mean effect is ``wanted`` within ``tolerance``.

    With more than four ``texts`` each cell is bracketed on the first four, roughly, and ends with
    at most three passes over all. NaN or infinity counts as too strong. The effect is taken to
    rise with the strength: a bracketed secant search in logarithms that halves its bracket every
    third time. A cell that would need more than ``strength_max``, or does not settle in 30 passes
    and these three, is NaN. So is, without a pass, one whose effect at strength 0, its ``floor``
    [cells, texts], is not below the wanted one, on the first four or on all.
    """
    few = texts[:BRACKET_TEXTS]
    least = np.zeros((len(wanted), len(texts))) if floor is None else floor
    too_much = np.maximum(least.mean(axis=1), least[:, : len(few)].mean(axis=1)) >= wanted
    searches = {
        cell: _Search(float(wanted[cell]), min(float(start[cell]), strength_max))
        for cell in np.flatnonzero(~too_much).tolist()
    }
    if len(few) == len(texts):
        settled, passes = _settle(searches, measure, texts, PASSES_MAX, tolerance, strength_max)
        over_all = passes
    else:
        found, passes = _settle(searches, measure, few, PASSES_MAX, BRACKET_TOLERANCE, strength_max)
        last = {
            cell: _Search(searches[cell].wanted, strength, power=searches[cell].power)
            for cell, (strength, _) in found.items()
        }
        settled, over_all = _settle(
            last, measure, texts, PASSES_OVER_ALL_MAX, tolerance, strength_max
        )
    strength = np.full(len(wanted), np.nan)
    effects = np.full((len(wanted), len(texts)), np.nan)
    for cell, (reached, by_text) in settled.items():
        strength[cell], effects[cell] = reached, by_text
    return Solution(strength, effects, passes, over_all)


def _settle(
    searches: dict[int, _Search],
    measure: Measure,
    texts: Indices,
    passes_max: int,
    tolerance: float,
    strength_max: float,
) -> tuple[dict[int, tuple[float, Floats]], int]:
    """Return the strength and the effects of each cell that came close enough, and the passes.

    All cells that are still sought are measured in one call.
    """
    settled: dict[int, tuple[float, Floats]] = {}
    unsolved = sorted(searches)
    passes = 0
    while unsolved and passes < passes_max:
        passes += 1
        trials = np.array([searches[cell].trial for cell in unsolved])
        measured = measure(np.array(unsolved, dtype=np.int64), trials, texts)
        rest = []
        for cell, by_text in zip(unsolved, measured, strict=True):
            search, value = searches[cell], float(by_text.mean())
            if abs(value - search.wanted) <= tolerance * search.wanted:
                settled[cell] = (search.trial, by_text)
                continue
            search.learn(value if np.isfinite(value) else float("inf"), passes)
            search.trial = min(search.trial, strength_max)
            if search.weak < strength_max:
                rest.append(cell)
        unsolved = rest
    return settled, passes
