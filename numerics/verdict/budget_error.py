"""The error of equal budgets: what it adds to a contrast, and scores read off at a given KL.

Strengths are solved on some neutral texts, and on others the same arms differ by a few percent. All
openings share that error, so more of them do not average it away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TEXT_SD = 0.18
"""Standard deviation, from text to text, of the logarithm of the ratio of two arms' KL, as measured
on the shipped pairs: 0.10 to 0.13 for pairs of texts, 0.06 at eight, 0.04 at sixteen."""
TEXT_SD_WORTH = 4
"""This many texts of a run weigh as much as that: the spread of two or three is a poor estimate."""


RARE = 0.02
"""A smaller rate counts as this one in log-odds: how rare the concept is in unsteered text is
little evidence of how steeply it comes."""


@dataclass(frozen=True)
class BudgetError:
    """What unequal budgets may add to the contrast of two arms.

    ``log_ratio_sd`` is the standard deviation of the logarithm of the ratio of their effects,
    ``slope`` how much the score changes when that logarithm does by 1, ``shared_sd`` the standard
    deviation of what the contrast owes to it: their product, a mean over the strengths.
    """

    log_ratio_sd: float
    slope: float
    shared_sd: float


@dataclass(frozen=True)
class ArmAtBudgets:
    """An arm at each strength: ``effects`` [strengths, texts], ``scores`` [strengths, openings]."""

    effects: Floats
    scores: Floats


def log_ratio_sd(first: Floats, second: Floats) -> float:
    """Return the standard deviation of log(mean of ``first`` / mean of ``second``) over texts.

    Both are effects [texts] on the same texts. The bootstrap over texts in its linear limit (the
    infinitesimal jackknife, Efron 1982): no draws, one answer. The variance from text to text is
    pooled with ``TEXT_SD``, so that few texts that happen to agree claim nothing; of one text that
    alone is known. NaN where a mean is not above 0.
    """
    means = first.mean(), second.mean()
    if not min(means) > 0:
        return float("nan")
    texts = len(first)
    influence = first / means[0] - second / means[1]
    pooled = (TEXT_SD_WORTH * TEXT_SD**2 + float(influence @ influence)) / (
        TEXT_SD_WORTH + texts - 1
    )
    return float(np.sqrt(pooled / texts))


def slopes(arm: ArmAtBudgets, unsteered: Floats | None) -> Floats:
    """Return how much an arm's score changes with the logarithm of its effect, at each strength.

    Root mean square of the slope: what was measured, and its standard error beside it, since a
    slope that was seen by chance to be flat bounds nothing. With two strengths or more the slope is
    that between neighbours, with one ``_steepest``.
    """
    openings = arm.scores.shape[1]
    if len(arm.scores) > 1:
        by_opening = np.gradient(arm.scores, np.log(arm.effects.mean(axis=1)), axis=0)
        slope = by_opening.mean(axis=1)
    else:
        by_opening = arm.scores - (0.0 if unsteered is None else unsteered[None, :])
        slope = np.array([_steepest(arm.scores[0], unsteered)])
    error = by_opening.var(axis=1, ddof=1) / openings if openings > 1 else 0.0
    return np.asarray(np.sqrt(slope**2 + error), dtype=np.float64)


def _steepest(scores: Floats, unsteered: Floats | None) -> float:
    """Return the slope that one strength allows, from the rise of its rate above ``unsteered``.

    The larger of two: that of a score in proportion to the effect, which is the whole rise, and
    that of a score whose log-odds rise with the norm (the root of the effect): r (1 − r) / 2 times
    the rise of the log-odds. Without unsteered scores the rise is taken from 0.
    """
    least = np.zeros(len(scores)) if unsteered is None else unsteered
    rate, before = (float(np.clip(values.mean(), RARE, 1 - RARE)) for values in (scores, least))
    log_odds = np.log(rate / (1 - rate)) - np.log(before / (1 - before))
    rise = float(scores.mean() - least.mean())
    return float(max(abs(rise), rate * (1 - rate) * abs(log_odds) / 2))


def budget_error(
    first: ArmAtBudgets, second: ArmAtBudgets, unsteered: Floats | None
) -> BudgetError:
    """Return what the error of two arms' budgets adds to the contrast of their mean scores.

    Both have the same strengths. The steeper arm counts; errors at several strengths come from the
    same texts and are taken to go together.
    """
    spread = np.array(
        [log_ratio_sd(a, b) for a, b in zip(first.effects, second.effects, strict=True)]
    )
    slope = np.maximum(slopes(first, unsteered), slopes(second, unsteered))
    return BudgetError(float(spread.mean()), float(slope.mean()), float((spread * slope).mean()))


@dataclass(frozen=True)
class AtEffect:
    """An arm read off at a given effect: scores [openings] and effects [texts], interpolated."""

    scores: Floats
    effects: Floats
    slope: float


def read_off(arm: ArmAtBudgets, effect: float) -> AtEffect | str:
    """Return the arm at ``effect``, linear in its logarithm between two strengths, or why not."""
    means = arm.effects.mean(axis=1)
    if len(means) < 2:
        return (
            f"it was scored at one strength ({means[0]:.3g} nats), so its score at {effect:.3g} "
            "nats is not known; give two strengths around that"
        )
    if not means.min() <= effect <= means.max():
        return (
            f"it was scored from {means.min():.3g} to {means.max():.3g} nats, and {effect:.3g} "
            "lies outside; give strengths on both sides of it"
        )
    order = np.argsort(means, kind="stable")
    logs = np.log(means[order])
    upper = int(np.clip(np.searchsorted(logs, np.log(effect)), 1, len(logs) - 1))
    low, high = order[upper - 1], order[upper]
    share = float((np.log(effect) - logs[upper - 1]) / (logs[upper] - logs[upper - 1]))
    return AtEffect(
        (1 - share) * arm.scores[low] + share * arm.scores[high],
        (1 - share) * arm.effects[low] + share * arm.effects[high],
        float(max(slopes(arm, None)[[low, high]])),
    )
