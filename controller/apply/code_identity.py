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
    for part in _PARTS:
        place = _ROOT / part
        for file in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            total.update(f"{part}/{file.name}".encode())
            total.update(file.read_bytes())
    return total.hexdigest()
