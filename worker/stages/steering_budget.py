"""How strongly each arm pushes: declared norms, or the norm that brings a wanted effect."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from loopscope.numerics.budget import PASSES_MAX, Solution, solve_strengths
from loopscope.numerics.capture import NotFinite
from loopscope.numerics.sampling import keyed_generator
from loopscope.numerics.scores import loss_rise, next_token_kl, prefixed_kl
from loopscope.worker.stages.steering_arms import SYSTEM_PROMPT
from loopscope.worker.stages.steering_cells import Cell, unsteered_cells
from loopscope.worker.stages.steering_run import SteeringRun, not_finite

CELLS_PER_PASS_MAX = 64
"""Cells whose divergence is computed in one pass over a text."""
BUDGETS = {"nextTokenKl": next_token_kl, "fluencyLoss": loss_rise}
"""What is made equal between arms, by the unit of the strengths: nats per token of a text."""
START_SHARE = 0.1
"""First norm tried, in median centred residual norms."""
NORM_MAX_SHARE = 20.0
"""An arm that needs more than this many median residual norms does not reach its budget."""


@dataclass(frozen=True)
class NeutralTexts:
    """The texts on which divergence is measured, as tokens with BOS.

    Strengths are solved on ``calibrate``, divergence is reported on ``test``. A single text is
    both.
    """

    calibrate: tuple[int, ...]
    test: tuple[int, ...]

    @staticmethod
    def split(run: SteeringRun) -> NeutralTexts:
        """Give half of the texts, chosen by their hash, to each purpose."""
        texts = run.payload["neutralText"]
        if run.payload["strengthUnit"] not in BUDGETS or len(texts) == 1:
            everything = tuple(range(len(texts)))
            return NeutralTexts(everything, everything)
        ranks = [keyed_generator("neutral-split", text).random() for text in texts]
        order = np.argsort(ranks, kind="stable").tolist()
        half = len(texts) // 2
        return NeutralTexts(tuple(sorted(order[:half])), tuple(sorted(order[half:])))


def choose_cells(run: SteeringRun) -> tuple[list[Cell], dict[str, str]]:
    """Return the cells of the run, and why a cell of the spec is missing."""
    payload = run.payload
    unsteered = unsteered_cells(payload["arms"], bool(run.prefix))
    wanted = [
        Cell(arm, float(strength)) for arm in run.arms.vectors for strength in payload["strengths"]
    ]
    if payload["strengthUnit"] not in BUDGETS:
        scale = _scale(run)
        steered = [Cell(c.arm, c.strength, c.strength * scale) for c in wanted]
        return [*unsteered, *steered], {}
    solution, floor = _solve(run, wanted)
    norms = solution.strength.tolist()
    reached = [
        Cell(cell.arm, cell.strength, norm)
        for cell, norm in zip(wanted, norms, strict=True)
        if not math.isnan(norm)
    ]
    missing = {
        f"{cell.arm} at {cell.strength:g}": _why_missing(cell, least, payload["strengthUnit"])
        for cell, norm, least in zip(wanted, norms, floor.tolist(), strict=True)
        if math.isnan(norm)
    }
    return [*unsteered, *reached], missing


def _why_missing(cell: Cell, floor: float, unit: str) -> str:
    if floor >= cell.strength:
        return (
            f"clearing its latents alone brings {floor:.3g} nats of {unit}, so no norm brings "
            f"{cell.strength:g}"
        )
    return f"no norm brings this {unit}"


def _scale(run: SteeringRun) -> float:
    unit = run.payload["strengthUnit"]
    if unit == "absolute":
        return 1.0
    return run.norms()["median_norm" if unit == "residualNorm" else "median_centred_norm"]


def _solve(run: SteeringRun, wanted: list[Cell]) -> tuple[Solution, NDArray[np.float64]]:
    """Find each cell's norm, its effect on the calibrate texts within 2 % of the wanted.

    Return beside it each cell's effect at norm 0: what its arm does by clearing latents.
    """
    norms = run.norms()
    texts = NeutralTexts.split(run).calibrate
    passes = 0

    def report(_text: int) -> None:
        run.context.progress("MatchingBudgets", passes, PASSES_MAX, "passes")

    def measure(cells: NDArray[np.int64], tried: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal passes
        passes += 1
        trial = [
            Cell(wanted[cell].arm, wanted[cell].strength, norm)
            for cell, norm in zip(cells.tolist(), tried.tolist(), strict=True)
        ]
        unit = run.payload["strengthUnit"]
        return mean_effect(run, trial, texts, f"budget-{passes:02d}", report, unit)

    floor = np.zeros(len(wanted))
    clearing = [i for i, cell in enumerate(wanted) if run.steers(Cell(cell.arm, cell.strength))]
    if clearing:
        floor[clearing] = measure(np.array(clearing), np.zeros(len(clearing)))
    solution = solve_strengths(
        measure,
        np.array([cell.strength for cell in wanted]),
        np.full(len(wanted), START_SHARE * norms["median_centred_norm"]),
        strength_max=NORM_MAX_SHARE * norms["median_norm"],
        floor=floor,
    )
    return solution, floor


def mean_effect(
    run: SteeringRun,
    cells: list[Cell],
    texts: tuple[int, ...],
    name: str,
    report: Callable[[int], None],
    unit: str = "nextTokenKl",
) -> NDArray[np.float64]:
    """Return each cell's mean effect over the tokens of some neutral texts, in nats.

    By default KL(clean ‖ cell), which a system prompt has, too; else another of ``BUDGETS``.
    Pieces are kept as shards under ``name``; ``report(texts done)`` is called before each text.
    """
    moved = [i for i, cell in enumerate(cells) if run.steers(cell)]
    prefixed = [i for i, cell in enumerate(cells) if cell.arm == SYSTEM_PROMPT]
    totals, positions = np.zeros(len(cells)), 0
    for done, index in enumerate(texts):
        report(done)
        tokens = run.model.encode(run.payload["neutralText"][index])
        if moved:
            compute = partial(_summed, run, BUDGETS[unit], tokens, [cells[i] for i in moved])
            totals[moved] += run.kept(f"{name}-{index:05d}.json", compute)
        if prefixed:
            totals[prefixed] += run.kept(
                f"{name}-prefix-{index:05d}.json", partial(_summed_prefixed_kl, run, tokens)
            )
        positions += len(tokens) - (2 if unit == "fluencyLoss" else 1)  # its last predicts none
    return totals / positions


def _summed(
    run: SteeringRun,
    effect: Callable[..., torch.Tensor],
    tokens: list[int],
    cells: list[Cell],
) -> list[float]:
    sums: list[float] = []
    at_once = CELLS_PER_PASS_MAX // run.context.batch_divisor
    for start in range(0, len(cells), at_once):
        part = cells[start : start + at_once]
        try:
            nats = effect(run.model.causal, run.place, tokens, run.intervention(part))
        except NotFinite as error:
            raise not_finite(error, [Cell("none", 0.0), *part]) from error
        sums.extend(nats.sum(dim=1).tolist())
    return sums


def _summed_prefixed_kl(run: SteeringRun, tokens: list[int]) -> float:
    return float(prefixed_kl(run.model.causal, tokens, run.prefix, run.context.device).sum())
