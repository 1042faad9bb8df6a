"""Former defaults: why an unchanged file may ask for other work than before."""

from __future__ import annotations

from loopscope.specs.json_values import Json
from loopscope.specs.merging import Leaves

Path = tuple[str, ...]

FORMER_DEFAULTS: dict[str, tuple[Json, ...]] = {
    "steering.samplesPerPrompt": (1,),
    "steering.randomDraws": (3,),
    "splits.discover": (1.0,),
    "splits.test": (0.0,),
}
"""By the field of an Experiment, its former defaults. A default that is new where there was none
needs no line."""


def is_new_default(kind: str, path: Path, before: Leaves, after: Leaves, stated: set[Path]) -> bool:
    """Whether a field that the file does not state differs because its default changed.

    ``before`` and ``after`` are all fields of the stored spec and of the one that is wanted.
    """
    if any(_begins(path, place) or _begins(place, path) for place in stated):
        return False
    if path in before:
        return before[path] in _former(kind, ".".join(path))
    new = next(path[:n] for n in range(1, len(path) + 1) if not _is_part(path[:n], before))
    return not any(_begins(place, new) for place in stated)


def _former(kind: str, field: str) -> tuple[Json, ...]:
    """An object of its own has the fields that are a part of an Experiment at its top."""
    return FORMER_DEFAULTS.get(field) or FORMER_DEFAULTS.get(f"{kind.lower()}.{field}", ())


def _is_part(place: Path, of: Leaves) -> bool:
    return any(_begins(path, place) for path in of)


def _begins(path: Path, start: Path) -> bool:
    return path[: len(start)] == start
