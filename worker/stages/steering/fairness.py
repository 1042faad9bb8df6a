"""Fairness of a run's contrasts: the error of equal budgets, and arms beside a prompt."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.statistics.paired import Contrast, paired_contrast
from loopscope.numerics.steering.budget_error import (
    ArmAtBudgets,
    BudgetError,
    budget_error,
    log_ratio_sd,
    read_off,
)
from loopscope.numerics.steering.fixed_text import POSITIONS_PER_TEXT
from loopscope.specs.artifacts import verdict as records
from loopscope.worker.stages.steering.arms import PLACEBO_PROMPT, PRIMARY, SYSTEM_PROMPT
from loopscope.worker.stages.steering.cells import Row
from loopscope.worker.stages.steering.scored import UNSTEERED, Scored
from loopscope.worker.stages.steering.verdict_record import contrast_record

Values = dict[Row, float]
Floats = NDArray[np.float64]


def budget_errors(scored: Scored, concept: Values) -> dict[str, BudgetError]:
    """Return what the error of the budgets adds to each contrast of multi with a steered arm.

    Empty where strengths are norms, which nothing makes equal in effect.
    """
    strengths = scored.common_strengths()
    if scored.budget is None or not strengths:
        return {}
    arms = {
        arm: found
        for arm in scored.arms
        if arm not in UNSTEERED
        and (found := _at_strengths(scored, concept, arm, strengths, scored.budget)) is not None
    }
    unsteered = scored.by_arm(concept).get("none")
    before = None if unsteered is None else unsteered.mean(axis=1)
    return {
        f"multi-{arm}": budget_error(arms["multi"], other, before)
        for arm, other in arms.items()
        if arm != "multi" and "multi" in arms
    }


def budget_record(scored: Scored, errors: dict[str, BudgetError]) -> records.Budget | None:
    """Return the budgets' error for ``verdict.json``, None where strengths are norms."""
    if scored.budget is None:
        return None
    return {
        "unit": scored.payload["strengthUnit"],
        "texts": scored.budget.shape[1],
        "positions_per_text": POSITIONS_PER_TEXT,
        "errors": [
            {
                "contrast": name,
                "log_ratio_sd": _known(error.log_ratio_sd),
                "slope": _known(error.slope),
                "shared_sd": _known(error.shared_sd),
            }
            for name, error in errors.items()
        ],
    }


def largest_budget_sd(record: records.Budget) -> float | None:
    """Return the largest sd that a contrast of the verdict owes to budgets, None where unknown."""
    binding = {f"multi-{arm}" for arm in ("coarse", "fine")}
    added = [e["shared_sd"] for e in record["errors"] if e["contrast"] in binding]
    known = [sd for sd in added if sd is not None]
    return max(known, default=None)


def system_prompt_record(scored: Scored, concept: Values) -> records.SystemPrompt | None:
    """Return the system prompt beside the arms at its own KL, None without one.

    ``arms`` holds for each of coarse, fine and multi its contrast with the prompt, its score read
    off at the prompt's KL between two strengths, or the ``reason`` why that cannot be known;
    ``placebo`` is the prompt's contrast with a prompt of the same length.
    """
    prompt = _cell(scored, SYSTEM_PROMPT)
    if prompt is None:
        return None
    placebo = _cell(scored, PLACEBO_PROMPT)
    kl = scored.divergence
    return {
        "kl": kl[prompt],
        "placebo_kl": None if placebo is None else kl[placebo],
        "placebo": None if placebo is None else contrast_record(_placebo(scored, concept)),
        "arms": [
            _beside_prompt(scored, concept, arm, prompt) for arm in PRIMARY if arm in scored.arms
        ],
    }


def _placebo(scored: Scored, concept: Values) -> Contrast:
    scores = scored.by_arm(concept)
    return paired_contrast(
        f"{SYSTEM_PROMPT}-{PLACEBO_PROMPT}",
        scores[SYSTEM_PROMPT].mean(axis=1),
        scores[PLACEBO_PROMPT].mean(axis=1),
        group=scored.group,
        unit=1.0 / scored.payload["samplesPerPrompt"],
    )


def _beside_prompt(scored: Scored, concept: Values, arm: str, prompt: int) -> records.BesidePrompt:
    strengths = sorted({cell.strength for cell in scored.cells if cell.arm == arm})
    at = _at_strengths(scored, concept, arm, strengths, scored.neutral.kl)
    assert at is not None, "an arm has the strengths that it reached"
    found = read_off(at, scored.divergence[prompt])
    if isinstance(found, str):
        return {"arm": arm, "rate": None, "contrast": None, "reason": found}
    spread = log_ratio_sd(found.effects, scored.neutral.kl[prompt])
    contrast = paired_contrast(
        f"{arm}-{SYSTEM_PROMPT}",
        found.scores,
        scored.by_text(concept, prompt).mean(axis=1),
        group=scored.group,
        shared_sd=spread * found.slope,
        unit=1.0 / scored.payload["samplesPerPrompt"],
    )
    rate = float(found.scores.mean())
    return {"arm": arm, "rate": rate, "contrast": contrast_record(contrast), "reason": None}


def _cell(scored: Scored, arm: str) -> int | None:
    return next((index for index, cell in enumerate(scored.cells) if cell.arm == arm), None)


def _at_strengths(
    scored: Scored, concept: Values, arm: str, strengths: list[float], effects: Floats
) -> ArmAtBudgets | None:
    """Return an arm at these strengths, draws averaged; None where it did not reach them all."""
    cells = [scored.cells_of(arm, strength) for strength in strengths]
    if not all(cells):
        return None
    return ArmAtBudgets(
        np.stack([effects[chosen].mean(axis=0) for chosen in cells]),
        np.stack(
            [
                np.mean([scored.by_text(concept, index).mean(axis=1) for index in chosen], axis=0)
                for chosen in cells
            ]
        ),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
