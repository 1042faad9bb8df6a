"""Field managers: on whose behalf something is applied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ANYBODY = "loopscope"
"""The manager of objects that were applied without a name for their set."""


def set_manager(name: str) -> str:
    """Return the manager that stands for a named apply set."""
    return f"apply-set:{name}"


def folder_manager(folder: Path) -> str:
    """Return the manager that stands for a watched folder."""
    return f"folder:{folder}"


def api_manager(name: str) -> str:
    """Return the manager that stands for a field manager of the API."""
    return f"api:{name}"


def field_manager(manager: str) -> str:
    """Return a manager as the API names it."""
    return manager.removeprefix("api:")


@dataclass(frozen=True)
class Applier:
    """On whose behalf something is applied. ``force``: take over what belongs to another."""

    manager: str = ANYBODY
    force: bool = False
    edits: bool = False
    """The objects are meant as they stand, whichever manager set a field; all managers stay."""


BY_ANYBODY = Applier()


def described(manager: str) -> str:
    """Return a manager in words."""
    kind, _, name = manager.partition(":")
    words = {
        "apply-set": f"apply set {name}",
        "folder": f"the watched folder {name}",
        "api": f"field manager {name}",
    }
    return words.get(kind, "an apply without --apply-set")
