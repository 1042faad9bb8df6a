"""A mutant in the place of its module, in this process only: no file is touched."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType


def plant(path: Path, source: bytes) -> Callable[[], bool]:
    """Let the file at ``path`` be imported as if it held ``source``; return whether it was.

    Raises SyntaxError. By its path, since migrations are loaded without the name of a module.
    """
    code = compile(source, path, "exec", dont_inherit=True)
    as_ever = SourceFileLoader.get_code
    imported = False

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        nonlocal imported
        if os.path.realpath(self.path) != str(path):
            return as_ever(self, fullname)
        imported = True
        return code

    SourceFileLoader.get_code = get_code
    return lambda: imported
