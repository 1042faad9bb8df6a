"""Fairness of a run's contrasts: the error of equal budgets, and arms beside a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loopscope.numerics.statistics.paired import Contrast, paired_contrast
from loopscope.numerics.verdict.budget_error import (
    ArmAtBudgets,
    BudgetError,
    budget_error,
    log_ratio_sd,
    read_off,
)
from loopscope.numerics.verdict.cells import (
    NONE,
    PLACEBO_PROMPT,
    PRIMARY_ARMS,
    SYSTEM_PROMPT,
    UNSTEERED,
    Floats,
    ScoredCells,
)


@dataclass(frozen=True)
class BesidePrompt:
    """An arm at the KL of the system prompt, or the ``reason`` why that cannot be known."""

    arm: str
    rate: float | None = None
    contrast: Contrast | None = None
    reason: str | None = None


@dataclass(frozen=True)
class PromptFairness:
    """The system prompt beside its placebo and the steered arms."""

    kl: float
    placebo_kl: float | None
    placebo: Contrast | None
    arms: list[BesidePrompt]


def budget_errors(run: ScoredCells) -> dict[str, BudgetError]:
    """Return what the error of the budgets adds to each contrast of multi with a steered arm.

    Empty where strengths are norms, which nothing makes equal in effect.
    """
    strengths = run.common_strengths()
    if run.budget is None or not strengths:
        return {}
    concept = run.outcomes["concept"]
    arms = {
        arm: found
        for arm in run.arms
        if arm not in UNSTEERED
        and (found := _at_strengths(run, concept, arm, strengths, run.budget)) is not None
    }
    unsteered = run.by_arm(concept).get(NONE)
    before = None if unsteered is None else unsteered.mean(axis=1)
    return {
        f"multi-{arm}": budget_error(arms["multi"], other, before)
        for arm, other in arms.items()
        if arm != "multi" and "multi" in arms
    }


def prompt_fairness(run: ScoredCells) -> PromptFairness | None:
    """Return the system prompt beside the arms at its own KL, None without one.

    ``arms`` holds for each of coarse, fine and multi its contrast with the prompt, its score read
    off at the prompt's KL between two strengths, or the ``reason`` why that cannot be known;
    ``placebo`` is the prompt's contrast with a prompt of the same length.
    """
    prompt = run.cell_of(SYSTEM_PROMPT)
    if prompt is None:
        return None
    placebo = run.cell_of(PLACEBO_PROMPT)
    return PromptFairness(
        float(run.kl[prompt].mean()),
        None if placebo is None else float(run.kl[placebo].mean()),
        None if placebo is None else _placebo(run),
        [_beside_prompt(run, arm, prompt) for arm in PRIMARY_ARMS if arm in run.arms],
    )


def _placebo(run: ScoredCells) -> Contrast:
    scores = run.by_arm(run.outcomes["concept"])
    return paired_contrast(
        f"{SYSTEM_PROMPT}-{PLACEBO_PROMPT}",
        scores[SYSTEM_PROMPT].mean(axis=1),
        scores[PLACEBO_PROMPT].mean(axis=1),
        group=run.group,
        unit=1.0 / run.samples,
    )


def _beside_prompt(run: ScoredCells, arm: str, prompt: int) -> BesidePrompt:
    concept = run.outcomes["concept"]
    at = _at_strengths(run, concept, arm, run.strengths_of(arm), run.kl)
    assert at is not None, "an arm has the strengths that it reached"
    found = read_off(at, float(run.kl[prompt].mean()))
    if isinstance(found, str):
        return BesidePrompt(arm, reason=found)
    spread = log_ratio_sd(found.effects, run.kl[prompt])
    contrast = paired_contrast(
        f"{arm}-{SYSTEM_PROMPT}",
        found.scores,
        concept[prompt].mean(axis=1),
        group=run.group,
        shared_sd=spread * found.slope,
        unit=1.0 / run.samples,
    )
    return BesidePrompt(arm, float(found.scores.mean()), contrast)


def _at_strengths(
    run: ScoredCells, concept: Floats, arm: str, strengths: Sequence[float], effects: Floats
) -> ArmAtBudgets | None:
    """Return an arm at these strengths, draws averaged; None where it did not reach them all."""
    cells = [run.cells_of(arm, strength) for strength in strengths]
    if not all(cells):
        return None
    return ArmAtBudgets(
        np.stack([effects[chosen].mean(axis=0) for chosen in cells]),
        np.stack(
            [np.mean([concept[index].mean(axis=1) for index in chosen], axis=0) for chosen in cells]
        ),
    )
