"""The evidence of a verdict, put together from the scores of a run's cells."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from loopscope.numerics.verdict.budget_error import BudgetError
from loopscope.numerics.verdict.cells import RANDOM, Floats, ScoredCells
from loopscope.numerics.verdict.decision import Evidence

CONCEPT, INTACT = "concept", "intact"
NO_SECONDARY = (CONCEPT, "sibling", INTACT)
"""Outcomes that are no outcome of their own: the first is the verdict's, the others part of one."""


def evidence_of(
    run: ScoredCells,
    arm_cosines: Mapping[str, float],
    missing: Mapping[str, str],
    errors: Mapping[str, BudgetError],
) -> Evidence:
    """Return what a verdict on the concept score rests on; the other outcomes stand beside it.

    ``errors`` are those of the budgets, by contrast.
    """
    concept = run.outcomes[CONCEPT]
    shared = {name: error.shared_sd for name, error in errors.items()}
    random = f"multi-{RANDOM}"
    shared[random] = math.hypot(shared.get(random, 0.0), run.random_spread(concept))
    return Evidence(
        run.by_arm(concept),
        arm_cosines,
        missing,
        group=run.group,
        turn=run.turn,
        strengths=max(1, len(run.common_strengths())),
        intact=rate_among_intact(run),
        shared_sd=shared,
        secondary={
            name: {arm: texts.mean(axis=1) for arm, texts in run.by_arm(values).items()}
            for name, values in run.outcomes.items()
            if name not in NO_SECONDARY
        },
    )


def rate_among_intact(run: ScoredCells) -> dict[str, Floats]:
    """Return each arm's concept rate of each opening among its intact texts, NaN without any."""
    concept, intact = run.outcomes[CONCEPT], run.outcomes[INTACT]
    hits, texts = run.by_arm(concept * intact), run.by_arm(intact)
    rates = {}
    for arm, hit in hits.items():
        share = texts[arm].mean(axis=1)
        known = share > 0
        rates[arm] = np.where(known, hit.mean(axis=1) / np.where(known, share, 1.0), np.nan)
    return rates
