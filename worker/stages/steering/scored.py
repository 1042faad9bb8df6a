"""A finished steering run before its tables: every text with what was measured of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loopscope.specs.artifacts.verdict import Probe, SteeredAnchor
from loopscope.specs.payloads.steering import SteeringPayload
from loopscope.worker.stages.steering.arms import PLACEBO_PROMPT, PRIMARY, SYSTEM_PROMPT
from loopscope.worker.stages.steering.cells import Cell, Row
from loopscope.worker.stages.steering.neutral import NeutralScores
from loopscope.worker.stages.steering.shift import ShiftRecord

RANDOM = "random"
UNSTEERED = ("none", SYSTEM_PROMPT, PLACEBO_PROMPT)


@dataclass(frozen=True)
class Scored:
    """A finished run before its tables. ``rows`` are in opening, cell, sample order.

    ``outcomes`` maps an outcome to its value for each row, NaN where unknown. ``neutral`` and
    ``budget`` (what was made equal, NaN for cells that are not steered; None where strengths are
    norms) have a column for each neutral text, ``neutral_order`` its number in the payload.
    """

    payload: SteeringPayload
    cells: list[Cell]
    rows: list[Row]
    tokens: dict[Row, list[int]]
    texts: dict[Row, str]
    outcomes: dict[str, dict[Row, float]]
    probe: Probe
    anchor: SteeredAnchor | None
    neutral_order: list[int]
    neutral: NeutralScores
    budget: NDArray[np.float64] | None
    shifts: list[ShiftRecord]
    special_tokens: frozenset[int]
    arm_cosines: dict[str, float]
    missing: dict[str, str]

    @property
    def group(self) -> NDArray[np.int64] | None:
        """The number of each opening's group; None where each stands for itself."""
        numbers = [opening.get("group") for opening in self.payload["openings"]]
        return None if None in numbers else np.array(numbers, dtype=np.int64)

    @property
    def divergence(self) -> list[float]:
        """Each cell's mean KL(clean ‖ cell) over the neutral texts, in nats."""
        return [float(kl) for kl in self.neutral.kl.mean(axis=1)]

    @property
    def arms(self) -> list[str]:
        """The arms that have a cell; all random directions are one."""
        return list(self._draws())

    def cells_of(self, arm: str, strength: float) -> list[int]:
        """Return the cells of an arm at a strength: one, or those of all random directions."""
        draws = self._draws().get(arm, [])
        return [
            index
            for index, cell in enumerate(self.cells)
            if cell.arm in draws and cell.strength == strength
        ]

    def by_text(self, values: dict[Row, float], cell: int) -> NDArray[np.float64]:
        """Return a cell's values [openings, samples]."""
        found = np.full((len(self.payload["openings"]), self.payload["samplesPerPrompt"]), np.nan)
        for row in self.rows:
            if row.cell == cell:
                found[row.opening, row.sample] = values[row]
        return found

    def common_strengths(self) -> list[float]:
        """Return the strengths that coarse, fine and multi all reached, as far as they are there.

        Means over different budgets would compare nothing.
        """
        reached = [
            {cell.strength for cell in self.cells if cell.arm == arm}
            for arm in PRIMARY
            if any(cell.arm == arm for cell in self.cells)
        ]
        return sorted(set.intersection(*reached)) if reached else []

    def by_arm(self, values: dict[Row, float]) -> dict[str, NDArray[np.float64]]:
        """Return each arm's values [openings, samples], a mean over the common strengths.

        All random directions are one arm: their mean within a strength, then over strengths. An arm
        that did not reach every common strength is left out.
        """
        return {
            arm: mean
            for arm, draws in self._draws().items()
            if (mean := self._mean_over_strengths(values, arm, draws)) is not None
        }

    def random_spread(self, values: dict[Row, float]) -> float:
        """Return the standard error that the choice of random directions gives their mean.

        A direction is a cluster: between as many draws as reached every common strength; 0 with
        fewer than two, from which it cannot be estimated.
        """
        draws = self._draws().get(RANDOM, [])
        means = [self._mean_over_strengths(values, RANDOM, [draw]) for draw in draws]
        found = np.array([mean.mean() for mean in means if mean is not None])
        return float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else 0.0

    def _draws(self) -> dict[str, list[str]]:
        """Return the cells' names of each arm: one, or those of all random directions."""
        draws: dict[str, list[str]] = {}
        for cell in self.cells:
            arm = RANDOM if cell.arm.startswith(f"{RANDOM}-") else cell.arm
            if cell.arm not in draws.setdefault(arm, []):
                draws[arm].append(cell.arm)
        return draws

    def _mean_over_strengths(
        self, values: dict[Row, float], arm: str, draws: Iterable[str]
    ) -> NDArray[np.float64] | None:
        strengths = [0.0] if arm in UNSTEERED else self.common_strengths()
        chosen = set(draws)
        means = []
        for strength in strengths:
            cells = [
                index
                for index, cell in enumerate(self.cells)
                if cell.arm in chosen and cell.strength == strength
            ]
            if not cells:
                return None
            means.append(np.mean([self.by_text(values, index) for index in cells], axis=0))
        return np.mean(means, axis=0) if means else None
