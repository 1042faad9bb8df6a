"""Problems of a user's file: what is wrong, and where."""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.specs.legible import encodable, legible


@dataclass(frozen=True)
class Problem:
    """One thing to fix. ``line`` and ``column`` count from 1; 0 means unknown."""

    file: str
    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        """Return the problem in words that any file and terminal takes."""
        file, message = legible(self.file), encodable(self.message)
        place = f"{file}:{self.line}:{self.column}" if self.line else file
        return f"{place}: {self.field}: {message}" if self.field else f"{place}: {message}"


class InvalidSpec(Exception):
    """One or more problems in what was to be applied; nothing was stored."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
