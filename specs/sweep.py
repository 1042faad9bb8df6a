"""A matrix: one Experiment that stands for many, one for each combination of values.

Plain JSON in, plain JSON out. A value of an axis is a set of fields, each named by its path
(``hook``, ``steering.lexicon``) and replaced as a whole; two axes never set the same field, so
their order does not matter. Axes and values are taken in name order, never in the order of the
file: what is stored and what is written anew must give the same names.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

if TYPE_CHECKING:  # a table of objects is shown without any of these types
    from loopscope.specs.json_values import Json, JsonObject
    from loopscope.specs.spec_json import MatrixJson

AXES_MAX = 6
CELLS_MAX = 256
"""Combinations that one experiment may stand for."""
_WORD = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

AxisName = Annotated[str, Field(pattern=_WORD, max_length=30)]
ValueName = Annotated[str, Field(pattern=_WORD, max_length=30)]
FieldPath = Annotated[
    str, Field(pattern=r"^[a-z][A-Za-z0-9]*(\.[a-z][A-Za-z0-9]*)*$", max_length=200)
]
Axis = Annotated[dict[ValueName, dict[FieldPath, Any]], Field(min_length=1)]
Matrix = Annotated[dict[AxisName, Axis], Field(min_length=1, max_length=AXES_MAX)]

Combination = tuple[tuple[str, str], ...]
"""A value of each axis, as pairs of both, by axis."""
HOLD_OVER = "holdOver"
Step = int | str
Location = tuple[Step, ...]


@dataclass(frozen=True)
class Cell:
    """One combination: a value of each axis, and the spec that it stands for."""

    values: tuple[tuple[str, str], ...]
    """Pairs of axis and value, by axis."""
    spec: JsonObject

    @property
    def suffix(self) -> str:
        """What follows the experiment's name in the cell's name."""
        return suffix_of(self.values)


def suffix_of(values: tuple[tuple[str, str], ...]) -> str:
    """Return the values' names, joined: the part of a cell's name that distinguishes it."""
    return "-".join(value for _, value in values)


def matrix_of(spec: Mapping[str, Json]) -> MatrixJson:
    """Return the matrix of a spec that has one."""
    return cast("MatrixJson", spec["matrix"])


def count(matrix: MatrixJson) -> int:
    """Return how many combinations a matrix has."""
    return math.prod(len(values) for values in matrix.values())


def combinations(matrix: MatrixJson) -> Iterator[Combination]:
    """Yield each combination as pairs of axis and value, in name order."""
    axes = [[(axis, value) for value in sorted(matrix[axis])] for axis in sorted(matrix)]
    yield from itertools.product(*axes)


def cell_names(name: str, spec: Mapping[str, Json]) -> list[str]:
    """Return the names of an experiment's cells; without a matrix there are none."""
    return (
        [f"{name}-{suffix_of(values)}" for values in combinations(matrix_of(spec))]
        if ("matrix" in spec)
        else []
    )


def cells(spec: Mapping[str, Json]) -> list[Cell]:
    """Return what a spec with a matrix stands for, in name order."""
    matrix = matrix_of(spec)
    without = {name: value for name, value in spec.items() if name not in ("matrix", HOLD_OVER)}
    found = []
    for values in combinations(matrix):
        filled = without
        for axis, value in values:
            for path, given in matrix[axis][value].items():
                filled = replaced(filled, tuple(path.split(".")), given)
        found.append(Cell(values, filled))
    return found


def replaced(spec: Json, steps: tuple[str, ...], given: Json) -> JsonObject:
    """Return ``spec`` with the field at ``steps`` replaced; what is not on the way is shared."""
    inside = spec if isinstance(spec, dict) else {}
    rest = replaced(inside.get(steps[0]), steps[1:], given) if len(steps) > 1 else given
    return {**inside, steps[0]: rest}


def value_at(spec: Json, path: str) -> Json:
    """Return the field at ``path``. Raises KeyError where there is none."""
    for step in path.split("."):
        if not isinstance(spec, dict):
            raise KeyError(path)
        spec = spec[step]
    return spec


def origin(matrix: MatrixJson, cell: Cell, place: Location) -> Location | None:
    """Return where in the matrix a cell's field was given; None when it is the experiment's own.

    ``place`` is the path of the field below ``spec``.
    """
    for axis, value in cell.values:
        for path in matrix[axis][value]:
            steps = tuple(path.split("."))
            if place[: len(steps)] == steps:
                return ("matrix", axis, value, path, *place[len(steps) :])
    return None


def overlaps(matrix: MatrixJson) -> Iterator[tuple[Location, str]]:
    """Yield each field that two axes set, or one value twice, with what is wrong with it."""
    known: list[tuple[str, str, str]] = []
    for axis, values in sorted(matrix.items()):
        for value, patch in sorted(values.items()):
            for path in sorted(patch):
                for other_axis, other_value, other in known:
                    apart = other_axis == axis and other_value != value
                    if not apart and _is_within(path, other):
                        where = f"matrix.{other_axis}.{other_value}"
                        message = f"{where} sets {other} already; a field belongs to one axis"
                        yield ("matrix", axis, value, path), message
                known.append((axis, value, path))


def _is_within(path: str, other: str) -> bool:
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")
