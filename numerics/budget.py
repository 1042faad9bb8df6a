"""Equal budgets: the strength at which each arm reaches a wanted effect.

Equal norm is not equal disturbance: a random direction of the norm of a decoder row changes the
next token ten to a hundred times as much. So arms are compared at an equal effect, and the
strength that brings it is found per arm.
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
PASSES_MAX = 30
STEP_MAX = 8.0
"""A strength moves at most by this factor at a time."""
POWER_LIMITS = (0.3, 8.0)


@dataclass(frozen=True)
class Solution:
    """Per cell the strength and the effect that was measured at it; NaN where not reached."""

    strength: Floats
    effect: Floats
    passes: int


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
    measure: Callable[[Indices, Floats], Floats],
    wanted: Floats,
    start: Floats,
    *,
    strength_max: float,
    tolerance: float = TOLERANCE,
    floor: Floats | None = None,
) -> Solution:
    """Return the strength of each cell whose measured effect is ``wanted`` within ``tolerance``.

    ``measure(cells, strengths)`` returns the effects of some cells, all unsolved ones in one
    call; NaN or infinity counts as too strong. The effect is taken to rise with the strength: a
    bracketed secant search in logarithms that halves its bracket every third time. A cell that
    would need more than ``strength_max``, or does not settle in 30 passes, is NaN. So is, without
    a pass, one whose effect at strength 0, its ``floor``, is not below the wanted one.
    """
    strength, effect = np.full(len(wanted), np.nan), np.full(len(wanted), np.nan)
    searches = [
        _Search(float(w), min(float(s), strength_max)) for w, s in zip(wanted, start, strict=True)
    ]
    least = np.zeros(len(wanted)) if floor is None else floor
    unsolved = [cell for cell, search in enumerate(searches) if least[cell] < search.wanted]
    passes = 0
    while unsolved and passes < PASSES_MAX:
        passes += 1
        trials = np.array([searches[cell].trial for cell in unsolved])
        measured = measure(np.array(unsolved, dtype=np.int64), trials)
        rest = []
        for cell, value in zip(unsolved, measured.tolist(), strict=True):
            search = searches[cell]
            if abs(value - search.wanted) <= tolerance * search.wanted:
                strength[cell], effect[cell] = search.trial, value
                continue
            search.learn(value if np.isfinite(value) else float("inf"), passes)
            search.trial = min(search.trial, strength_max)
            if search.weak < strength_max:
                rest.append(cell)
        unsolved = rest
    return Solution(strength, effect, passes)
