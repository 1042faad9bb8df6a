"""Fairness of the comparison of arms: the error of their budgets, and a prompt beside them."""

from __future__ import annotations

from loopscope.reports.text_table import TextTable
from loopscope.specs.artifacts.verdict import Verdict
from loopscope.specs.neutral import NEUTRAL_TEXTS_ADVISED
from loopscope.views.numbers import (
    MINUS,
    MISSING,
    decimal,
    percent,
    signed,
    signed_interval,
)

BINDING = ("multi-coarse", "multi-fine")


def budget_errors(verdict: Verdict) -> TextTable:
    """Return the error of the budgets as columns and rows of text; without rows where none is."""
    budget = verdict.get("budget")
    rows = [
        [
            error["contrast"].replace("-", f" {MINUS} ", 1),
            _or_missing(error["log_ratio_sd"]),
            _or_missing(error["slope"]),
            _or_missing(error["shared_sd"]),
        ]
        for error in (budget["errors"] if budget else [])
    ]
    heads = ["contrast", "sd of log ratio", "slope", "sd added to the contrast"]
    return TextTable(heads, rows)


def _or_missing(value: float | None) -> str:
    return MISSING if value is None else decimal(value, 3)


def budget_caution(verdict: Verdict) -> str:
    """Return what few neutral texts cost; empty where there are enough, or no budgets."""
    budget = verdict.get("budget")
    if not budget or budget["texts"] >= NEUTRAL_TEXTS_ADVISED:
        return ""
    texts = budget["texts"]
    added = [e["shared_sd"] for e in budget["errors"] if e["contrast"] in BINDING]
    known = [sd for sd in added if sd is not None]
    cost = f" by a standard deviation of {decimal(max(known), 3)}" if known else ""
    return (
        f"The budgets rest on {texts} neutral text{'s' if texts != 1 else ''} "
        f"({NEUTRAL_TEXTS_ADVISED} are advised), so they are less equal than they look; the "
        f"intervals of the contrasts carry that error{cost}."
    )


def beside_prompt(verdict: Verdict) -> TextTable:
    """Return each arm at the system prompt's own KL; no rows without a system prompt."""
    record = verdict.get("system_prompt")
    rows = []
    for arm in record["arms"] if record else []:
        contrast = arm["contrast"]
        if contrast is None:
            rows.append([arm["arm"], MISSING, MISSING, MISSING, f"not comparable: {arm['reason']}"])
            continue
        interval = signed_interval(contrast["low"], contrast["high"], 3)
        rows.append(
            [arm["arm"], percent(arm["rate"], 0), signed(contrast["estimate"], 3), interval, ""]
        )
    heads = ["arm", "concept at that KL", f"arm {MINUS} prompt", "95 % interval", "note"]
    return TextTable(heads, rows)


def placebo_sentence(verdict: Verdict) -> str:
    """Return the prompt's KL, and how it compares with one of the same length; empty without."""
    record = verdict.get("system_prompt")
    if not record:
        return ""
    found = f"The system prompt changes the next token by {decimal(record['kl'], 3)} nats"
    placebo = record["placebo"]
    if placebo is None:
        return f"{found}."
    return (
        f"{found}, a placebo of the same length by {decimal(record['placebo_kl'], 3)}; in the "
        f"concept score the prompt is {signed(placebo['estimate'], 3)} "
        f"{signed_interval(placebo['low'], placebo['high'], 3)} above the placebo."
    )
