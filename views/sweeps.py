"""A sweep as a grid: its axes, what each value sets, and what came out in each cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from loopscope.numerics.verdict.several import METHOD
from loopscope.reconcilers.holding import Held
from loopscope.specs.keys import Key
from loopscope.specs.sweep import HOLD_OVER, combinations, matrix_of, suffix_of
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.records import ObjectRecord
from loopscope.views.brief import in_brief
from loopscope.views.numbers import MISSING, decimal
from loopscope.views.present import present
from loopscope.views.several import Row, Several, row_of, several

NUMBER_COLUMNS = (
    *("state", "gate", "percentile", "verdict", f"after {METHOD}", "p"),
    *("contrast", "estimate", "interval"),
)
"""What stands behind the axes in a table of a sweep."""
NOT_CREATED = "NotCreated"


@dataclass(frozen=True)
class AxisValue:
    """A value of an axis; ``sets`` are its fields, by path, with what each is set to in brief."""

    name: str
    sets: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Axis:
    """An axis of a sweep with its values, by name."""

    name: str
    values: tuple[AxisValue, ...]


@dataclass(frozen=True)
class GridCell:
    """A combination of values, one for each axis in their order, and what came out.

    ``state`` is ``Ready``, else the reason why not, and ``message`` explains it. ``percentile`` is
    the gate's, from 0 to 100. ``row`` has gate, verdict (its own and corrected over the whole
    sweep) and the effect with its interval; what is not there yet is empty or None.
    """

    name: str
    values: tuple[str, ...]
    state: str
    message: str
    percentile: float | None
    row: Row

    @property
    def cells(self) -> tuple[str, ...]:
        """The cell as texts: one for each axis, then one for each of ``NUMBER_COLUMNS``."""
        _, gate, *rest = self.row.cells
        return (*self.values, self.state, gate, decimal(self.percentile, 1), *rest)


@dataclass(frozen=True)
class Sweep:
    """A sweep with all its cells, those that do not exist yet among them.

    ``together`` corrects and pools the verdicts; None for fewer than two with a steering part.
    """

    name: str
    axes: tuple[Axis, ...]
    cells: tuple[GridCell, ...]
    together: Several | None
    held: tuple[str, ...] = ()
    """A sentence for each place where the verdict is asked to hold over some axes."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The heads of a table whose rows are ``GridCell.cells``."""
        return (*(axis.name for axis in self.axes), *NUMBER_COLUMNS)

    @property
    def ready(self) -> int:
        """How many cells are Ready."""
        return sum(cell.state == "Ready" for cell in self.cells)


class SweepCellDocument(TypedDict):
    """A cell of a sweep: the value of each axis, and what came out."""

    name: str
    values: dict[str, str]
    state: str
    message: str
    gate: str | None
    percentile: float | None
    verdict: str | None
    corrected: str | None
    p: float | None
    contrast: str | None
    estimate: float | None
    low: float | None
    high: float | None


class SweepDocument(TypedDict):
    """A sweep: what each value of each axis sets, its cells, and sentences about all of them."""

    name: str
    axes: dict[str, dict[str, dict[str, str]]]
    cells: list[SweepCellDocument]
    sentences: list[str]


def load_sweep(connection: Connection, key: Key) -> Sweep:
    """Read a sweep. Raises KeyError if there is no experiment ``key``, or if it is no sweep."""
    stored = objects.get(connection, key)
    if stored is None or "matrix" not in stored.spec:
        raise KeyError(str(key))
    owned = objects.owned_by(connection, stored.uid)
    record, *cells = present(connection, [stored, *owned])
    return sweep_of(record, cells)


def sweep_of(record: ObjectRecord, owned: Sequence[ObjectRecord]) -> Sweep:
    """Return the grid of a sweep from the experiments that it owns.

    A cell of values that were taken out of the matrix, which is about to be deleted, is left out.
    """
    matrix = matrix_of(record.spec)
    axes = tuple(
        Axis(
            axis, tuple(_value(one, fields, record.spec) for one, fields in sorted(values.items()))
        )
        for axis, values in sorted(matrix.items())
    )
    known = {one.key.name: one for one in owned}
    wanted = {
        f"{record.key.name}-{suffix_of(values)}": tuple(value for _, value in values)
        for values in combinations(matrix)
    }
    together = several([known[name] for name in wanted if name in known])
    rows = {row.name: row for row in together.rows} if together else {}
    cells = tuple(_cell(name, values, known.get(name), rows) for name, values in wanted.items())
    held = held_sentences(record.spec, record.status.summary)
    return Sweep(record.key.name, axes, cells, together, held)


def held_sentences(spec: Mapping[str, Any], summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Return whether the verdict holds over the axes that a spec asks about, in words."""
    axes = " and ".join(spec.get(HOLD_OVER) or ())
    return tuple(_held_sentence(axes, one) for one in summary.get("holds", ()))


def _held_sentence(axes: str, one: Held) -> str:
    where = ", ".join(f"{axis} {value}" for axis, value in one["where"].items())
    place = f"With {where} the" if where else "The"
    told = "; ".join(f"{word} at {', '.join(cells)}" for word, cells in one["words"].items())
    if one["holds"]:
        return f"{place} verdict holds over {axes}: {one['verdict']} in every cell."
    if one["holds"] is None:
        return f"{place} verdict is asked to hold over {axes}; not all cells have one yet."
    return f"{place} verdict does not hold over {axes}: {told}."


def sweep_lines(sweep: Sweep) -> Iterator[tuple[str, ...]]:
    """Yield the grid's head and rows as texts; the axes are the first columns."""
    yield sweep.columns
    for cell in sweep.cells:
        yield cell.cells


def sweep_document(sweep: Sweep) -> SweepDocument:
    """Return a sweep as a document; what is not known is null."""
    axes = [axis.name for axis in sweep.axes]
    return {
        "name": sweep.name,
        "axes": {
            axis.name: {value.name: dict(value.sets) for value in axis.values}
            for axis in sweep.axes
        },
        "cells": [
            {
                "name": cell.name,
                "values": dict(zip(axes, cell.values, strict=True)),
                "state": cell.state,
                "message": cell.message,
                "gate": cell.row.gate or None,
                "percentile": cell.percentile,
                "verdict": cell.row.word or None,
                "corrected": cell.row.corrected or None,
                "p": cell.row.p,
                "contrast": cell.row.contrast or None,
                "estimate": cell.row.estimate,
                "low": cell.row.low,
                "high": cell.row.high,
            }
            for cell in sweep.cells
        ],
        "sentences": [*(sweep.together.sentences if sweep.together else []), *sweep.held],
    }


def _value(name: str, fields: Mapping[str, Any], spec: Mapping[str, Any]) -> AxisValue:
    return AxisValue(
        name, tuple(one for path in sorted(fields) for one in _sets(path, fields, spec))
    )


def _sets(
    path: str, fields: Mapping[str, Any], spec: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield what a field is set to; of a part of the spec the fields that differ from the sweep's.

    A part is set as a whole, so mostly to defaults: cut short, two values would read the same.
    """
    own: Any = spec
    for step in path.split("."):
        own = (own or {}).get(step)
    found, before = dict(_leaves(path, fields[path])), dict(_leaves(path, own))
    if path in found:
        yield path, in_brief(found[path])
        return
    for leaf in sorted({*found, *before} - {path}):
        if found.get(leaf) != before.get(leaf):
            yield leaf, in_brief(found.get(leaf))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or not value or "texts" in value:
        yield path, value
        return
    for name, inner in value.items():
        yield from _leaves(f"{path}.{name}", inner)


def _cell(
    name: str,
    values: tuple[str, ...],
    record: ObjectRecord | None,
    rows: Mapping[str, Row],
) -> GridCell:
    if record is None:
        row = Row(name, "", "", "", None, "", None, None, None)
        return GridCell(name, values, NOT_CREATED, "the controller has not made it", None, row)
    ready = record.status.condition("Ready")
    current = record.status.observed_generation == record.generation
    state = "Ready" if record.ready else ready.reason if ready and current else MISSING
    return GridCell(
        name,
        values,
        state,
        ready.message if ready and current else "the controller has not looked at this spec yet",
        record.status.summary.get("percentile") if current else None,
        rows.get(name) or row_of(record),
    )
