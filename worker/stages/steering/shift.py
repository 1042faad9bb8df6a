"""The next token after each opening, before and after each intervention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypedDict

import torch
from torch import Tensor

from loopscope.numerics.model.batching import in_parts
from loopscope.numerics.steering.passes import Steering, read_openings
from loopscope.numerics.steering.shift import TokenShift, token_shifts
from loopscope.worker.stages.steering.cells import Cell
from loopscope.worker.stages.steering.run import SteeringRun

ROWS_PER_SHARD = 128
"""Openings and cells whose next tokens are compared in one shard, at least those of an opening."""


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
    at_once = max(1, ROWS_PER_SHARD // (len(moved) + 1))
    for number, start in enumerate(range(0, len(ids), at_once)):
        run.context.progress("ComparingDistributions", start, len(ids), "openings")
        openings = range(start, min(len(ids), start + at_once))
        compute = partial(_shifts_of_openings, run, moved, openings)
        found = run.kept(f"shift-{number:05d}.json", compute)
        for opening, of_opening in zip(openings, found, strict=True):
            for cell, shifts in zip(moved, of_opening, strict=True):
                records.extend(
                    {"prompt_id": ids[opening], "arm": cell.arm, "strength": cell.strength, **shift}
                    for shift in shifts
                )
    return records


def _shifts_of_openings(
    run: SteeringRun, moved: list[Cell], openings: Sequence[int]
) -> list[list[list[TokenShiftRecord]]]:
    """Return the records of each opening and cell. Cells that are words before the opening too."""
    cells = [Cell("none", 0.0), *moved]
    states: list[Tensor] = []
    for part in in_parts(openings, run.context.batch_divisor):
        rows = [(opening, cell) for opening in part for cell in cells]
        read = read_openings(
            run.model.causal,
            run.place,
            [run.tokens_before(opening, cell.arm) for opening, cell in rows],
            Steering(run.intervention([cell for _, cell in rows])),
            run.model.pad_token,
            use_cache=False,
        )
        states.append(read.last.view(len(part), len(cells), -1))
    head = run.model.causal.head
    return [
        [[_record(run, shift) for shift in shifts] for shifts in of_opening]
        for of_opening in token_shifts(head, torch.cat(states))
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
