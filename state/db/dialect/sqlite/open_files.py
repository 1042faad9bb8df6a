"""A check that the files under open SQLite connections still lie at their path.

SQLite goes on with files that were deleted or replaced under it: what it writes then is never
read. So each transaction checks first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from loopscope.state.failures import TerminalFailure

Identity = tuple[int, int]
"""Device and inode."""


@dataclass
class OpenFiles:
    """Remembers a database and its ``-wal`` as they were first seen while connections are open.

    The ``-wal`` appears with the first write, and stays while any process is connected.
    """

    path: Path
    _seen: dict[str, Identity] = field(default_factory=dict)
    _paths: tuple[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self._paths = (str(self.path), f"{self.path}-wal")

    def check(self) -> None:
        """Raise TerminalFailure when one of them was deleted, moved or replaced."""
        for path in self._paths:
            now = _identity(path)
            if path not in self._seen and now is not None:
                self._seen[path] = now
            if self._seen.get(path) != now:
                raise TerminalFailure(
                    "DatabaseReplaced",
                    f"{path} was deleted, moved or replaced while it was in use; nothing was "
                    "written to what lies there now. Start again; if it is gone or damaged, "
                    "`loopscope rebuild SPECS` makes it from the specs and the artifacts",
                )

    def forget(self) -> None:
        """Start over: all connections were closed."""
        self._seen.clear()


def _identity(path: str) -> Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - asked for in every transaction
    except OSError:
        return None
    return found.st_dev, found.st_ino
