"""Strengths of the arms: declared norms, or the norm that brings a wanted effect."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.steering.budget import PASSES_MAX, Solution, solve_strengths
from loopscope.worker.stages.steering.cells import Cell, unsteered_cells
from loopscope.worker.stages.steering.neutral import BUDGETS, NeutralTexts
from loopscope.worker.stages.steering.run import SteeringRun

Floats = NDArray[np.float64]

START_SHARE = 0.1
"""First norm tried, in median centred residual norms."""
NORM_MAX_SHARE = 20.0
"""An arm that needs more than this many median residual norms does not reach its budget."""


@dataclass(frozen=True)
class Chosen:
    """The cells of a run, and why a cell of the spec is ``missing``.

    ``budget`` [cells, texts] is what was made equal: each cell's effect on each neutral text, NaN
    for cells that are not steered; None where strengths are norms.
    """

    cells: list[Cell]
    missing: dict[str, str]
    budget: Floats | None = None


def choose_cells(run: SteeringRun, texts: NeutralTexts) -> Chosen:
    """Return the cells of the run, each with the norm that its strength means."""
    payload = run.payload
    unsteered = unsteered_cells(payload["arms"], list(run.prompted))
    wanted = [
        Cell(arm, float(strength)) for arm in run.arms.vectors for strength in payload["strengths"]
    ]
    scale = _scale(run)
    if scale is not None:
        steered = [Cell(c.arm, c.strength, c.strength * scale) for c in wanted]
        return Chosen([*unsteered, *steered], {})
    solution, floor = _solve(run, texts, wanted)
    norms = solution.strength.tolist()
    reached = [index for index, norm in enumerate(norms) if not math.isnan(norm)]
    cells = [Cell(wanted[i].arm, wanted[i].strength, norms[i]) for i in reached]
    missing = {
        f"{cell.arm} at {cell.strength:g}": _why_missing(cell, least, payload["strengthUnit"])
        for cell, norm, least in zip(wanted, norms, floor.tolist(), strict=True)
        if math.isnan(norm)
    }
    nothing = np.full((len(unsteered), len(texts)), np.nan)
    budget = np.concatenate([nothing, solution.effects[reached]])
    return Chosen([*unsteered, *cells], missing, budget)


def _why_missing(cell: Cell, floor: float, unit: str) -> str:
    if floor >= cell.strength:
        return (
            f"ablating its latents alone brings {floor:.3g} nats of {unit}, so no norm brings "
            f"{cell.strength:g}"
        )
    return f"no norm brings this {unit}"


def norm_at(run: SteeringRun, strength: float) -> float | None:
    """Return the norm that a strength means; None where strengths are budgets, to be measured."""
    scale = _scale(run)
    return None if scale is None else strength * scale


def _scale(run: SteeringRun) -> float | None:
    unit = run.payload["strengthUnit"]
    if unit in BUDGETS:
        return None
    if unit == "absolute":
        return 1.0
    return run.norms()["median_norm" if unit == "residualNorm" else "median_centred_norm"]


def _solve(run: SteeringRun, texts: NeutralTexts, wanted: list[Cell]) -> tuple[Solution, Floats]:
    """Find each cell's norm, its mean effect on all texts within 2 % of the wanted.

    Return beside it each cell's effect at norm 0: what its arm does by ablating latents.
    """
    norms = run.norms()
    unit = run.payload["strengthUnit"]
    passes = 0

    def report(_text: int) -> None:
        run.context.progress("MatchingBudgets", passes, PASSES_MAX, "passes")

    def measure(
        cells: NDArray[np.int64], tried: Floats, places: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        nonlocal passes
        passes += 1
        alike: dict[tuple[str, float], list[int]] = {}  # all strengths of an arm begin at one norm
        for row, (cell, norm) in enumerate(zip(cells.tolist(), tried.tolist(), strict=True)):
            alike.setdefault((wanted[cell].arm, norm), []).append(row)
        trial = [
            Cell(arm, wanted[cells[own[0]]].strength, norm) for (arm, norm), own in alike.items()
        ]
        found = texts.effects(trial, places.tolist(), f"budget-{passes:02d}", unit, report)
        effects = np.empty((len(cells), len(places)))
        for row_of_trial, own in zip(found, alike.values(), strict=True):
            effects[own] = row_of_trial
        return effects

    everything = np.arange(len(texts))
    floor = np.zeros((len(wanted), len(texts)))
    ablating = [i for i, cell in enumerate(wanted) if run.steers(Cell(cell.arm, cell.strength))]
    if ablating:
        floor[ablating] = measure(np.array(ablating), np.zeros(len(ablating)), everything)
    solution = solve_strengths(
        measure,
        everything,
        np.array([cell.strength for cell in wanted]),
        np.full(len(wanted), START_SHARE * norms["median_centred_norm"]),
        strength_max=NORM_MAX_SHARE * norms["median_norm"],
        floor=floor,
    )
    return solution, floor.mean(axis=1)
