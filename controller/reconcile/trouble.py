"""Passing trouble that keeps the loop from its work; it goes on trying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from loopscope.state.failures import PASSING, Failure, TerminalFailure

log = structlog.get_logger("controller")


@dataclass
class Trouble:
    """The errors of one step. Logged in one line when they begin, and in one when they are over.

    ``message`` is what stands in the way now, or None.
    """

    message: str | None = None
    _kind: str | None = None
    _kind_before: str | None = None

    def begin_step(self) -> None:
        """Forget the last step's errors; ``end_step`` finds out whether they came again."""
        self._kind_before, self._kind, self.message = self._kind, None, None

    def attempt(self, part: Callable[[], None]) -> None:
        """Do one part of a step; an error that may pass leaves the other parts alone.

        Raises TerminalFailure: then a human must act on the state folder itself.
        """
        try:
            part()
        except TerminalFailure:
            raise
        except Exception as error:
            if not isinstance(error, PASSING):
                log.error("unexpected", part=part.__name__, exc_info=error)
            if self._kind is None:
                self._kind, self.message = _kind(error), _words(error)

    def end_step(self) -> None:
        """Log what changed since the step before."""
        if self._kind == self._kind_before:
            return
        if self._kind is not None:
            log.error("cannot do everything now; trying again", trouble=self.message)
        else:
            log.info("the trouble is over")


def _kind(error: Exception) -> str:
    """Return what stays the same while the same trouble lasts; free bytes in texts do not."""
    if isinstance(error, Failure):
        return error.reason
    return f"{type(error).__name__} {getattr(error, 'errno', '')}"


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, PASSING) else f"{type(error).__name__}: {error}"
