"""Fairness of a run's contrasts as it stands in ``verdict.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping

from loopscope.numerics.steering.fixed_text import POSITIONS_PER_TEXT
from loopscope.numerics.verdict.budget_error import BudgetError
from loopscope.numerics.verdict.fairness import BesidePrompt, PromptFairness
from loopscope.specs.artifacts import verdict as records
from loopscope.worker.stages.steering.scored import Scored
from loopscope.worker.stages.steering.verdict_record import contrast_record


def budget_record(scored: Scored, errors: Mapping[str, BudgetError]) -> records.Budget | None:
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


def system_prompt_record(found: PromptFairness | None) -> records.SystemPrompt | None:
    """Return the system prompt beside the arms at its own KL, None without one."""
    if found is None:
        return None
    return {
        "kl": found.kl,
        "placebo_kl": found.placebo_kl,
        "placebo": None if found.placebo is None else contrast_record(found.placebo),
        "arms": [_beside_prompt(one) for one in found.arms],
    }


def _beside_prompt(one: BesidePrompt) -> records.BesidePrompt:
    return {
        "arm": one.arm,
        "rate": one.rate,
        "contrast": None if one.contrast is None else contrast_record(one.contrast),
        "reason": one.reason,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
