"""Texts that come with Loopscope, for specs that bring none of their own."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

PackagedName = Literal["calibration", "neutral"]


@cache
def packaged_texts(name: PackagedName) -> tuple[str, ...]:
    """Return the texts of ``<name>.txt`` in this folder, one a line; read once."""
    content = (files(__package__) / f"{name}.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in content.splitlines() if line.strip())
