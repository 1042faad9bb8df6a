"""A finished steering run before its tables: every text with what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.verdict.cells import ScoredCells
from loopscope.specs.artifacts.verdict import Probe, SteeredAnchor
from loopscope.specs.payloads.steering import SteeringPayload
from loopscope.specs.stopping import turns_of
from loopscope.worker.stages.steering.cells import Cell, GeneratedText, Row
from loopscope.worker.stages.steering.neutral import NeutralScores
from loopscope.worker.stages.steering.shift import ShiftRecord


@dataclass(frozen=True)
class Scored:
    """A finished run before its tables. ``rows`` are in opening, cell, sample order.

    ``outcomes`` maps an outcome to its value for each row, NaN where unknown. ``neutral`` and
    ``budget`` (what was made equal, NaN for cells that are not steered; None where strengths are
    norms) have a column for each neutral text, ``neutral_order`` its number in the payload. The
    payload has the openings that were steered, of as many as were ``declared``.
    """

    payload: SteeringPayload
    cells: list[Cell]
    rows: list[Row]
    generated: dict[Row, GeneratedText]
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
    declared: int

    @property
    def tokens(self) -> dict[Row, list[int]]:
        """The tokens of each row."""
        return {row: found["tokens"] for row, found in self.generated.items()}

    @property
    def group(self) -> NDArray[np.int64] | None:
        """The number of each opening's group; None where each stands for itself."""
        numbers = [opening.get("group") for opening in self.payload["openings"]]
        return None if None in numbers else np.array(numbers, dtype=np.int64)

    @property
    def turn(self) -> NDArray[np.int64] | None:
        """The place of each opening in the order of the looks; None where nobody looks early."""
        if (rule := self.payload.get("stopEarly")) is None:
            return None
        turns = turns_of(self.payload["openings"], rule, self.payload["sampling"]["seed"])
        return np.array(turns, dtype=np.int64)

    @property
    def divergence(self) -> list[float]:
        """Each cell's mean KL(clean ‖ cell) over the neutral texts, in nats."""
        return [float(kl) for kl in self.neutral.kl.mean(axis=1)]

    def by_cell(self) -> ScoredCells:
        """Return the scores of each cell, as a verdict compares them."""
        shape = len(self.cells), len(self.payload["openings"]), self.payload["samplesPerPrompt"]
        outcomes = {name: np.full(shape, np.nan) for name in self.outcomes}
        for name, values in self.outcomes.items():
            for row in self.rows:
                outcomes[name][row.cell, row.opening, row.sample] = values[row]
        return ScoredCells(
            [(cell.arm, cell.strength) for cell in self.cells],
            outcomes,
            self.neutral.kl,
            self.budget,
            self.group,
            self.turn,
        )
