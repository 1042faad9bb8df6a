"""What the independent check compared, how well it agreed, and what rounding decided."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

TOLERANCE = 1e-4
NEAR_TIES_MAX = 0.02
"""Share of answers that may lie within rounding: with more, agreement would say little."""


@dataclass
class Comparison:
    """What was compared, for the page: numbers, near ties, the largest difference in units of size.

    A near tie is an answer that the last bit decides; it was the other one ``turned`` times.
    """

    rows: dict[str, tuple[int, float]] = field(default_factory=dict)
    near: dict[str, tuple[int, int]] = field(default_factory=dict)

    def agree(self, quantity: str, found: ArrayLike, expected: ArrayLike) -> None:
        """Assert that all numbers agree within TOLERANCE of the largest one, and keep how well."""
        a, b = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        assert a.shape == b.shape, quantity
        assert (np.isnan(a) == np.isnan(b)).all(), quantity
        size = max(float(np.nanmax(np.abs(b), initial=0.0)), 1e-12)
        difference = float(np.nanmax(np.abs(a - b), initial=0.0)) / size
        before, worst = self.rows.get(quantity, (0, 0.0))
        self.rows[quantity] = (before + a.size, max(worst, difference))
        assert difference < TOLERANCE, quantity

    def ties(self, quantity: str, near: int, turned: int, of: int) -> None:
        """Keep how many answers lay within rounding; assert that they are few, or all would do."""
        self.near[quantity] = (near, turned)
        assert near <= max(1, NEAR_TIES_MAX * of), f"{quantity}: {near} near ties of {of}"

    def table(self) -> str:
        """Return the rows as Markdown tables."""
        lines = ["| quantity | numbers | largest difference |", "|---|---|---|"]
        lines += [f"| {name} | {n:,} | {worst:.1e} |" for name, (n, worst) in self.rows.items()]
        lines += ["", "| answer | within rounding | the other way |", "|---|---|---|"]
        lines += [f"| {name} | {n} | {turned} |" for name, (n, turned) in self.near.items()]
        return "\n".join(lines)
