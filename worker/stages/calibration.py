"""Preflight of a decomposition: the dictionary does on ordinary text what it was measured to do."""

from __future__ import annotations

from typing import Any

from loopscope.numerics.dictionary import ReconstructionSums
from loopscope.worker.preflights import Preflight, require

ADVICE = "check that the dictionary was trained on this model and hook, in the same scale"


def calibration_preflight(payload: dict[str, Any], on_text: ReconstructionSums) -> dict[str, Any]:
    """Check L0 and FVU on all tokens of the calibration text, where ranges are given.

    Last tokens of prompts say nothing about a dictionary: they are not what it was trained on.
    Raises TerminalFailure ``PreflightFailed`` outside of a range.
    """
    measured = {"l0": on_text.l0, "fvu": on_text.fvu}
    return require(
        [
            Preflight(
                f"{name.upper()} on {on_text.rows:,} tokens of calibration text",
                measured[name],
                low,
                high,
                ADVICE,
            )
            for name, (low, high) in sorted(payload.get("calibration", {}).items(), reverse=True)
        ]
    )
