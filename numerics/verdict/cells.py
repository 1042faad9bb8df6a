"""A run's scores by its cells (an arm at a strength), and what of them a verdict compares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PRIMARY_ARMS = ("coarse", "fine", "multi")
RANDOM, NONE = "random", "none"
SYSTEM_PROMPT, PLACEBO_PROMPT = "systemPrompt", "placeboPrompt"
UNSTEERED = (NONE, SYSTEM_PROMPT, PLACEBO_PROMPT)


@dataclass(frozen=True)
class ScoredCells:
    """What was measured of each cell.

    ``outcomes`` maps an outcome to its values [cells, openings, samples], NaN where unknown; ``kl``
    [cells, texts] is what each cell does to each neutral text, ``budget`` what was made equal
    between arms (NaN for cells that are not steered; None where strengths are norms). ``group``
    [openings] numbers the openings that belong together, None where each stands for itself;
    ``turn`` [openings] rises in the order in which they were looked at, None where all were scored
    before anybody looked.
    """

    cells: Sequence[tuple[str, float]]
    outcomes: Mapping[str, Floats]
    kl: Floats
    budget: Floats | None
    group: Integers | None
    turn: Integers | None = None

    @property
    def arms(self) -> list[str]:
        """The arms that have a cell; all random directions are one."""
        return list(self._draws())

    def first(self, openings: int) -> ScoredCells:
        """Return the run with those openings alone that were looked at first."""
        assert self.turn is not None, "nobody looked at all openings but in one turn"
        kept = np.sort(np.argsort(self.turn)[:openings])
        return replace(
            self,
            outcomes={name: values[:, kept] for name, values in self.outcomes.items()},
            group=None if self.group is None else self.group[kept],
            turn=self.turn[kept],
        )

    @property
    def samples(self) -> int:
        """How many texts each opening has under a cell."""
        return int(self.outcomes["concept"].shape[2])

    def cell_of(self, arm: str) -> int | None:
        """Return the first cell of an arm, None without any."""
        return next((i for i, (name, _) in enumerate(self.cells) if name == arm), None)

    def cells_of(self, arm: str, strength: float) -> list[int]:
        """Return the cells of an arm at a strength: one, or those of all random directions."""
        return self._at(self._draws().get(arm, []), strength)

    def strengths_of(self, arm: str) -> list[float]:
        """Return the strengths at which an arm was steered, rising."""
        return sorted({strength for name, strength in self.cells if name == arm})

    def common_strengths(self) -> list[float]:
        """Return the strengths that coarse, fine and multi all reached, as far as they are there.

        Means over different budgets would compare nothing.
        """
        reached = [set(found) for arm in PRIMARY_ARMS if (found := self.strengths_of(arm))]
        return sorted(set.intersection(*reached)) if reached else []

    def by_arm(self, values: Floats) -> dict[str, Floats]:
        """Return each arm's values [openings, samples], a mean over the common strengths.

        All random directions are one arm: their mean within a strength, then over strengths. An arm
        that did not reach every common strength is left out.
        """
        return {
            arm: mean
            for arm, draws in self._draws().items()
            if (mean := self._mean_over_strengths(values, arm, draws)) is not None
        }

    def random_spread(self, values: Floats) -> float:
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
        for name, _ in self.cells:
            arm = RANDOM if name.startswith(f"{RANDOM}-") else name
            if name not in draws.setdefault(arm, []):
                draws[arm].append(name)
        return draws

    def _at(self, names: Iterable[str], strength: float) -> list[int]:
        chosen = set(names)
        return [
            index
            for index, (name, own) in enumerate(self.cells)
            if name in chosen and own == strength
        ]

    def _mean_over_strengths(self, values: Floats, arm: str, draws: Iterable[str]) -> Floats | None:
        strengths = [0.0] if arm in UNSTEERED else self.common_strengths()
        chosen = list(draws)
        means = []
        for strength in strengths:
            cells = self._at(chosen, strength)
            if not cells:
                return None
            means.append(np.mean([values[index] for index in cells], axis=0))
        return np.mean(means, axis=0) if means else None
