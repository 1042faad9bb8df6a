"""The next token after each opening, before and after each intervention."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from loopscope.numerics.shift import token_shifts
from loopscope.numerics.steering import steered_states
from loopscope.worker.stages.steering.cells import Cell
from loopscope.worker.stages.steering.run import SteeringRun


def distribution_shifts(run: SteeringRun, cells: list[Cell]) -> list[dict[str, Any]]:
    """Return one record for each opening, cell but ``none``, and token of either top ten."""
    moved = [cell for cell in cells if cell.arm != "none"]
    ids = [opening["id"] for opening in run.payload["openings"]]
    records: list[dict[str, Any]] = []
    for index, name in enumerate(ids):
        run.context.progress("ComparingDistributions", index, len(ids), "openings")
        compute = partial(_shifts_of_opening, run, moved, index)
        for cell, shifts in zip(moved, run.kept(f"shift-{index:05d}.json", compute), strict=True):
            key = {"prompt_id": name, "arm": cell.arm, "strength": cell.strength}
            records.extend({**key, **shift} for shift in shifts)
    return records


def _shifts_of_opening(
    run: SteeringRun, cells: list[Cell], opening: int
) -> list[list[dict[str, Any]]]:
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
        [_record(run, asdict(shift), shift.new_arrival) for shift in shifts]
        for shifts in token_shifts(run.model.causal.head, ordered)
    ]


def _record(run: SteeringRun, shift: dict[str, Any], new_arrival: bool) -> dict[str, Any]:
    return {"text": run.model.decode([shift["token"]]), **shift, "new_arrival": new_arrival}
