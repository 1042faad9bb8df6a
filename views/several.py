"""Several experiments side by side: each own word, the word after correction, a pooled row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loopscope.numerics.verdict.several import (
    CELLS_MIN,
    METHOD,
    Cell,
    Interval,
    Pooled,
    corrected,
    pooled,
)
from loopscope.numerics.verdict.words import WordP
from loopscope.state.records import ObjectRecord
from loopscope.views.numbers import (
    MINUS,
    MISSING,
    counted,
    decimal,
    p_value,
    signed,
    signed_interval,
    testable,
)

COLUMNS = ("cell", "gate", "verdict", f"after {METHOD}", "p", "contrast", "estimate", "interval")
UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Row:
    """One experiment: its own word (empty without an answer) and the word after the correction.

    ``corrected`` is None where the word is from a version that did not record its p. ``p`` is
    that of the own word after the correction, None where there is nothing to correct.
    """

    name: str
    gate: str
    word: str
    corrected: str | None
    p: float | None
    contrast: str
    estimate: float | None
    low: float | None
    high: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as texts, one for each of ``COLUMNS``."""
        return (
            self.name,
            self.gate or MISSING,
            self.word or MISSING,
            UNKNOWN if self.corrected is None else self.corrected or MISSING,
            p_value(self.p),
            self.contrast.replace("-", f" {MINUS} ") or MISSING,
            signed(self.estimate),
            signed_interval(self.low, self.high),
        )


@dataclass(frozen=True)
class Several:
    """The verdicts of experiments that were asked together."""

    rows: list[Row]
    pooled: Pooled | None

    @property
    def sentences(self) -> list[str]:
        """What was corrected, and the result of the pooled row."""
        corrected = [row for row in self.rows if row.p is not None]
        kept = sum(row.word == row.corrected for row in corrected)
        found = [
            f"Corrected over {counted(len(self.rows), 'verdict')} by {METHOD}, finished or not: "
            f"{kept} of {counted(len(corrected), 'word')} stay said."
        ]
        if self.pooled is not None:
            found.append(_pooled_sentence(self.pooled))
        return found


def several(records: Sequence[ObjectRecord]) -> Several | None:
    """Return the verdicts of experiments with a steering part; None for fewer than two."""
    asked = [record for record in records if "steering" in record.spec]
    if len(asked) < CELLS_MIN:
        return None
    cells = [_cell(record) for record in asked]
    words = corrected(cells)
    margin = min(float(record.spec["steering"]["minDifference"]) for record in asked)
    rows = [row_of(record, word, p) for record, (word, p) in zip(asked, words, strict=True)]
    return Several(rows, pooled(cells, margin))


def several_lines(found: Several) -> Iterator[tuple[str, ...]]:
    """Yield the table's head and rows as texts."""
    yield COLUMNS
    for row in found.rows:
        yield row.cells


def _pooled_sentence(row: Pooled) -> str:
    numbers = ", ".join(
        f"{name.replace('-', f' {MINUS} ')} {signed(mean.estimate)} "
        f"{signed_interval(mean.low, mean.high)} (sd between cells {decimal(row.tau[name])})"
        for name, mean in row.primary.items()
    )
    return f"Pooled over {row.cells} tested cells: {row.word}: {numbers}."


def answer_of(record: ObjectRecord) -> Mapping[str, Any]:
    """Return an experiment's summary; empty while it answers an earlier spec."""
    current = record.status.observed_generation == record.generation
    return record.status.summary if current else {}


def _cell(record: ObjectRecord) -> Cell:
    summary = answer_of(record)
    p = summary.get("p")
    primary: dict[str, dict[str, float | None]] = summary.get("primary") or {}
    intervals = {
        name: Interval(ends["estimate"], ends["low"], ends["high"])
        for name, ends in primary.items()
        if ends["estimate"] is not None and ends["low"] is not None and ends["high"] is not None
    }
    return Cell(
        word=str(summary.get("verdict", "")),
        p=WordP(**p) if p else None,
        primary=intervals,
        texts=json.dumps(record.spec["steering"]["prompts"]["texts"]),
    )


def row_of(record: ObjectRecord, corrected: str | None = "", p: float | None = None) -> Row:
    """Return an experiment's row, by default without a word after correction."""
    summary = answer_of(record)
    shown = testable(summary)
    return Row(
        name=record.key.name,
        gate=str(summary.get("gate", "")),
        word=str(summary.get("verdict", "")),
        corrected=corrected,
        p=p,
        contrast=str(shown.get("contrast") or ""),
        estimate=shown.get("estimate"),
        low=shown.get("low"),
        high=shown.get("high"),
    )
