"""A look: one other choice than the declared one, and what the verdict says under it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from loopscope.numerics.verdict.decision import Judgement
from loopscope.views.other_runs import Choice

Axis = Literal["declared", "minDifference", "outcome"] | Choice
Source = Literal["declared", "same texts", "other run", "not run"]


@dataclass(frozen=True)
class Look:
    """A choice and its verdict; what is not known (nothing was run) is empty or None.

    ``changed``: whether the word is another than the declared verdict's; None where there is none.
    ``note`` says what a setting is, which run it is, or what to write for one.
    """

    axis: Axis
    setting: str
    source: Source
    verdict: str = ""
    contrast: str = ""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    changed: bool | None = None
    note: str = ""

    def beside(self, declared: str) -> Look:
        """Return the look with ``changed`` against the declared word."""
        return replace(self, changed=self.verdict != declared if self.verdict else None)


def judged(axis: Axis, setting: str, found: Judgement, note: str = "", doubt: str = "") -> Look:
    """Return the look of a verdict on the same texts; a ``doubt`` silences its word."""
    binding = found.binding
    untested = without_advice(found.reason) if found.verdict == "NotTestable" else ""
    return Look(
        axis,
        setting,
        "same texts",
        "NotTestable" if doubt else found.verdict,
        binding.contrast if binding else "",
        binding.estimate if binding else None,
        _known(binding.low) if binding else None,
        _known(binding.high) if binding else None,
        binding.n if binding else None,
        note="; ".join(one for one in (note, doubt or untested) if one),
    )


def without_advice(reason: str) -> str:
    """Return the reason of a verdict without what to do: that stands beside the declared one."""
    return reason.partition("; use ")[0]


def not_run(axis: Axis, setting: str, note: str) -> Look:
    """Return the look that needs another run; ``note`` says which."""
    return Look(axis, setting, "not run", note=note)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
