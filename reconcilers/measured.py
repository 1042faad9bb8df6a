"""Conditions that follow from what a stage measured before it published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loopscope.specs.status import ConditionType, Truth

Measured = tuple[ConditionType, Truth, str, str]
"""Type, status, reason and message of a condition."""


def measured(metrics: Mapping[str, Any], transfer: str | None) -> Iterator[Measured]:
    """Yield the conditions of an artifact's metrics.

    ``transfer`` says from which model a dictionary was taken to which, where these are two.
    """
    checks = metrics.get("preflights") or {}
    if checks:
        message = "; ".join(
            f"{name}: {check['measured']:.4g} (allowed {check['low']:g} to {check['high']:g})"
            for name, check in checks.items()
        )
        yield "PreflightsPassed", "True", "WithinLimits", message
    fits = _fits(metrics, transfer)
    if fits is not None:
        yield "DictionaryFits", *fits


def _fits(metrics: Mapping[str, Any], transfer: str | None) -> tuple[Truth, str, str] | None:
    """Whether a dictionary reconstructs the calibration text, where that is in question.

    That is where it does not (``nearby`` was then looked for), and wherever it was trained on
    another model.
    """
    fvu, nearby = metrics.get("text_fvu"), metrics.get("nearby")
    if fvu is None or (transfer is None and nearby is None):
        return None
    where = f"{metrics['text_tokens']:,} tokens of calibration text"
    taken = f"{transfer}: " if transfer is not None else ""
    numbers = f"{taken}FVU {fvu:.3g} and L0 {metrics['text_l0']:.3g} on {where}"
    if fvu <= 1:
        share = f"it explains {1 - fvu:.0%} of the variance"
        unknown = "how much on its own model was not measured"
        return "True", "Reconstructs", f"{numbers}: {share}; {unknown}"
    message = f"{numbers}, worse than the mean vector"
    return "False", "DoesNotReconstruct", f"{message}; {nearby}" if nearby else message
