"""The next token after each opening, before and after each intervention."""

from __future__ import annotations

from functools import partial
from typing import TypedDict

import torch

from loopscope.numerics.steering.generation import steered_states
from loopscope.numerics.steering.shift import TokenShift, token_shifts
from loopscope.worker.stages.steering.cells import Cell
from loopscope.worker.stages.steering.run import SteeringRun


class TokenShiftRecord(TypedDict):
    """One token's place in the next-token distribution before and after; ranks start at 1."""

    text: str
    token: int
    probability_before: float
    rank_before: int
    probability_after: float
    rank_after: int
    new_arrival: bool


class ShiftRecord(TokenShiftRecord):
    """The same with the opening and the cell that it belongs to."""

    prompt_id: str
    arm: str
    strength: float


def distribution_shifts(run: SteeringRun, cells: list[Cell]) -> list[ShiftRecord]:
    """Return one record for each opening, cell but ``none``, and token of either top ten."""
    moved = [cell for cell in cells if cell.arm != "none"]
    ids = [opening["id"] for opening in run.payload["openings"]]
    records: list[ShiftRecord] = []
    for index, name in enumerate(ids):
        run.context.progress("ComparingDistributions", index, len(ids), "openings")
        compute = partial(_shifts_of_opening, run, moved, index)
        for cell, shifts in zip(moved, run.kept(f"shift-{index:05d}.json", compute), strict=True):
            records.extend(
                {"prompt_id": name, "arm": cell.arm, "strength": cell.strength, **shift}
                for shift in shifts
            )
    return records


def _shifts_of_opening(
    run: SteeringRun, cells: list[Cell], opening: int
) -> list[list[TokenShiftRecord]]:
    clean = Cell("none", 0.0)
    last = []
    for prompt in (None, *run.prefixes):
        of_prompt = [cell for cell in cells if cell.arm == prompt]
        steered = [clean, *(cell for cell in cells if cell.arm not in run.prefixes)]
        group = steered if prompt is None else of_prompt
        tokens = run.tokens_before(opening, prompt or clean.arm)
        states = steered_states(run.model.causal, run.place, tokens, run.intervention(group))
        last.append(dict(zip(group, states[:, -1], strict=True)))
    by_cell = {cell: state for part in last for cell, state in part.items()}
    ordered = torch.stack([by_cell[clean], *(by_cell[cell] for cell in cells)])
    return [
        [_record(run, shift) for shift in shifts]
        for shifts in token_shifts(run.model.causal.head, ordered)
    ]


def _record(run: SteeringRun, shift: TokenShift) -> TokenShiftRecord:
    return {
        "text": run.model.decode([shift.token]),
        "token": shift.token,
        "probability_before": shift.probability_before,
        "rank_before": shift.rank_before,
        "probability_after": shift.probability_after,
        "rank_after": shift.rank_after,
        "new_arrival": shift.new_arrival,
    }
