"""The import guard: no module of Loopscope that changed since the start is imported late."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from loopscope.state.source_code import CodeChanged, SourceCode


class ImportGuard(MetaPathFinder):
    """Finds no module; refuses those whose files changed, before any other finder looks."""

    def __init__(self, source: SourceCode) -> None:
        self.source = source

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return None. Raises CodeChanged."""
        if self.source.has_changed(name):
            raise CodeChanged(f"{name} is not as it was when this worker started")
        return None

    def install(self) -> None:
        """Let it be asked first, in this process and for good."""
        sys.meta_path.insert(0, self)
