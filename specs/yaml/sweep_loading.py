"""Checks of a matrix while a file is loaded: every cell must be a valid experiment by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import BaseModel, ValidationError

from loopscope.specs import sweep
from loopscope.specs.fields import FileReader, Texts
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.spec_json import MatrixJson
from loopscope.specs.sweep import CELLS_MAX, Cell, Location
from loopscope.specs.texts.source import DatasetAsked, FoundDataset

NAME_CHARACTERS_MAX = 52
INVALID_CELLS_MAX = 16
"""Cells whose problems are reported; a wrong value is wrong in all of its cells."""

Refusal = tuple[Location, str]
"""The path of a field below ``spec`` and what is wrong with it."""


@dataclass(frozen=True)
class InvalidCell:
    """A cell that is not a valid experiment; ``error`` has its problems, field by field."""

    cell: Cell
    error: ValidationError


@dataclass
class RememberedFiles:
    """A reader that reads each file once, however many cells name it."""

    files: FileReader
    _contents: dict[str, bytes] = field(default_factory=dict)
    _datasets: dict[DatasetAsked, FoundDataset] = field(default_factory=dict)

    def content(self, file: str) -> bytes:
        """Return the bytes of a text file."""
        if file not in self._contents:
            self._contents[file] = self.files.content(file)
        return self._contents[file]

    def dataset(self, asked: DatasetAsked) -> FoundDataset:
        """Return files of a hub data set."""
        if asked not in self._datasets:
            self._datasets[asked] = self.files.dataset(asked)
        return self._datasets[asked]

    def locate(self, path: str) -> str:
        """Return the absolute path of a file or folder."""
        return self.files.locate(path)


def shape_problems(name: str, matrix: MatrixJson) -> Iterator[Refusal]:
    """Yield what is wrong with a matrix before any of its cells is looked at."""
    if (cells := sweep.count(matrix)) > CELLS_MAX:
        yield ("matrix",), f"{cells} combinations, expected at most {CELLS_MAX}; leave values out"
        return
    yield from sweep.overlaps(matrix)
    for axis, values in matrix.items():
        for value, patch in values.items():
            for path, given in patch.items():
                message = _field_problem(path, given)
                if message is not None:
                    yield ("matrix", axis, value, path), message
    yield from _name_problems(name, matrix)


def _field_problem(path: str, given: Json) -> str | None:
    first, _, _ = path.partition(".")
    above, _, last = path.rpartition(".")
    if first == "matrix":
        return "a matrix cannot hold a matrix"
    if last in Texts.model_fields:
        return f"a set of texts is set as a whole; write {above}: {{{last}: …}}"
    if given is None:
        return "expected a value; leave the field out to keep the experiment's"
    return None


def _name_problems(name: str, matrix: MatrixJson) -> Iterator[Refusal]:
    seen: dict[str, str] = {}
    for values in sweep.combinations(matrix):
        cell = f"{name}-{sweep.suffix_of(values)}"
        pairs = ", ".join(f"{axis} {value}" for axis, value in values)
        if cell in seen:
            message = f"({seen[cell]}) and ({pairs}) would both be named {cell}; rename a value"
            yield ("matrix",), message
        elif len(cell) > NAME_CHARACTERS_MAX:
            message = (
                f"({pairs}) would be named {cell}, which has {len(cell)} characters, expected at "
                f"most {NAME_CHARACTERS_MAX}; use shorter names"
            )
            yield ("matrix",), message
            return
        seen.setdefault(cell, pairs)


def canonical_matrix(
    model: type[BaseModel], given: JsonObject, files: FileReader, *, exported: bool
) -> tuple[MatrixJson, list[InvalidCell]]:
    """Return the matrix of a spec as it is stored, and the cells that are not valid.

    ``given`` is the spec as it stands in the file; what is returned has texts in place, absolute
    paths and defaults, and is whole only if no cell is invalid. ``exported``: ``get`` printed it.
    """
    context = {"files": RememberedFiles(files), "exported": exported}
    matrix = sweep.matrix_of(given)
    canonical: MatrixJson = {axis: {v: {} for v in values} for axis, values in matrix.items()}
    invalid: list[InvalidCell] = []
    for cell in sweep.cells(given):
        try:
            whole = model.model_validate(cell.spec, context=context)
        except ValidationError as error:
            invalid.append(InvalidCell(cell, error))
            if len(invalid) >= INVALID_CELLS_MAX:
                break
            continue
        spec = whole.model_dump(mode="json", by_alias=True, exclude_none=True)
        for axis, value in cell.values:
            for path in matrix[axis][value]:
                canonical[axis][value][path] = sweep.value_at(spec, path)
    return canonical, invalid
