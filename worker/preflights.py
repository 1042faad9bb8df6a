"""Blocking checks of the set-up: a stage that fails one publishes nothing, and reports a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.specs.payloads.references import Preflights
from loopscope.state.failures import TerminalFailure


@dataclass(frozen=True)
class Preflight:
    """One measured check: it passes while ``low`` ≤ ``measured`` ≤ ``high``."""

    name: str
    measured: float
    low: float
    high: float
    advice: str
    """What to do when it fails."""

    @property
    def passes(self) -> bool:
        """Whether the number is inside its range; NaN never is."""
        return self.low <= self.measured <= self.high


def require(checks: Sequence[Preflight]) -> Preflights:
    """Return the checks for the status. Raises TerminalFailure ``PreflightFailed``."""
    for check in checks:
        if not check.passes:
            raise TerminalFailure(
                "PreflightFailed",
                f"{check.name}: measured {check.measured:.4g}, allowed {check.low:g} to "
                f"{check.high:g}; {check.advice}",
            )
    return {
        check.name: {"measured": check.measured, "low": check.low, "high": check.high}
        for check in checks
    }
