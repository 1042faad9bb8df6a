"""The next token after each opening, before and after each intervention."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics.model.batching import in_parts
from loopscope.numerics.steering.passes import Steering, read_openings
from loopscope.numerics.steering.shift import TokenShift, token_shifts
from loopscope.worker.stages.steering.cells import Cell, GeneratedText, Row
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


def state_text(state: Float[Tensor, " d_model"]) -> str:
    """Return a final state as text that holds its float32 numbers exactly."""
    return base64.b64encode(state.float().cpu().numpy().tobytes()).decode("ascii")


def _state(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.float32)


def distribution_shifts(
    run: SteeringRun, cells: list[Cell], generated: Mapping[Row, GeneratedText]
) -> list[ShiftRecord]:
    """Return one record for each opening, cell but ``none``, and token of either top ten.

    The states after the openings are those from which the first tokens were drawn.
    """
    moved = [number for number, cell in enumerate(cells) if cell.arm != "none"]
    ids = [opening["id"] for opening in run.payload["openings"]]
    records: list[ShiftRecord] = []
    at_once = max(1, ROWS_PER_SHARD // (len(moved) + 1))
    for number, start in enumerate(range(0, len(ids), at_once)):
        run.context.progress("ComparingDistributions", start, len(ids), "openings")
        openings = range(start, min(len(ids), start + at_once))
        compute = partial(_shifts_of_openings, run, cells, generated, openings)
        found = run.kept(f"shift-{number:05d}.json", compute)
        for opening, of_opening in zip(openings, found, strict=True):
            for place, shifts in zip(moved, of_opening, strict=True):
                arm, strength = cells[place].arm, cells[place].strength
                records.extend(
                    {"prompt_id": ids[opening], "arm": arm, "strength": strength, **shift}
                    for shift in shifts
                )
    return records


def _shifts_of_openings(
    run: SteeringRun,
    cells: list[Cell],
    generated: Mapping[Row, GeneratedText],
    openings: Sequence[int],
) -> list[list[list[TokenShiftRecord]]]:
    """Return the records of each opening and cell. Cells that are words before the opening too."""
    head = run.model.causal.head
    names = [cell.arm for cell in cells]
    moved = [number for number, arm in enumerate(names) if arm != "none"]

    def after(opening: int, cell: int) -> Tensor:
        text = generated[Row(opening, 0, cell)]["after_opening"]
        if text is None:
            raise ValueError(f"no state was kept after opening {opening} of {names[cell]}")
        return _state(text)

    if "none" in names:
        clean = torch.stack([after(opening, names.index("none")) for opening in openings])
    else:
        clean = _clean_states(run, openings).float().cpu()
    states = torch.stack(
        [
            torch.stack([row, *[after(opening, cell) for cell in moved]])
            for row, opening in zip(clean, openings, strict=True)
        ]
    )
    return [
        [[_record(run, shift) for shift in shifts] for shifts in of_opening]
        for of_opening in token_shifts(head, states.to(head.weight))
    ]


def _clean_states(run: SteeringRun, openings: Sequence[int]) -> Tensor:
    """Return the unsteered model's final states after openings, where it generated nothing."""
    states: list[Tensor] = []
    for part in in_parts(openings, run.context.batch_divisor):
        rows = [(opening, Cell("none", 0.0)) for opening in part]
        read = read_openings(
            run.model.causal,
            run.place,
            [run.openings[opening] for opening in part],
            Steering(run.intervention([cell for _, cell in rows])),
            run.model.pad_token,
            use_cache=False,
            reach=run.reach(rows),
        )
        states.append(read.last)
    return torch.cat(states)


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
