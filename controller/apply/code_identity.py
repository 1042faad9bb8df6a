"""The identity of the code that reads specs and decides; another one trusts no memo."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PARTS = (
    "specs", "inputs", "reconcilers", "controller/apply/admission.py",
    "controller/apply/prompts.py",
)  # fmt: skip


@functools.cache
def code_identity() -> str:
    """Return a hash over the source of everything that turns a file into an action."""
    total = hashlib.sha256()
    for file in files_that_decide():
        total.update(file.relative_to(_ROOT).as_posix().encode())
        total.update(file.read_bytes())
    return total.hexdigest()


def files_that_decide() -> list[Path]:
    """Return the source files that turn a file into an action, in order."""
    places = [_ROOT / part for part in _PARTS]
    found = [sorted(place.rglob("*.py")) if place.is_dir() else [place] for place in places]
    return [file for files in found for file in files]
