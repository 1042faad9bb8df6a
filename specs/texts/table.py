"""A table of rows: the column of the texts, and which rows are taken.

Rows are counted from 1, without a header. A message names file, row and column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from loopscope.specs.git_lfs import ADVICE, is_pointer
from loopscope.specs.legible import is_encodable
from loopscope.specs.suggest import did_you_mean
from loopscope.specs.texts.source import ReadTexts, TextFiles, TextSource

ROWS_MAX = 1_000_000
VALUES_SHOWN = 5
Columns = dict[str, list[object]]
"""By name, one value a row: text, number, true or false; None where a row has none."""
Reader = Callable[[bytes, str, Sequence[str]], Columns]
"""From a file's bytes, its name and the columns that are wanted. Raises ValueError."""
TABLE_OPTIONS = ("column", "where", "sample")


def table_source(format_: str, reader: Reader) -> TextSource:
    """Return the source that reads a file's column of texts with ``reader``."""

    def read(given: Mapping[str, Any], files: TextFiles) -> ReadTexts:
        file = given["file"]
        content = files.content(file)
        if is_pointer(content):
            raise ValueError(f"{file} {ADVICE}")
        return rows_of(given, file, lambda wanted: reader(content, file, wanted))

    return TextSource("file", read, format=format_, options=TABLE_OPTIONS)


def rows_of(
    given: Mapping[str, Any],
    name: str,
    columns_of: Callable[[Sequence[str]], Columns],
    place_of: Callable[[int], tuple[str, int]] | None = None,
) -> ReadTexts:
    """Return the texts of the rows that a set of texts asks for, with the labels of its groups.

    ``place_of`` says in which file, and there in which row, a row stands: ``name`` has them all
    where it is left out.
    """
    place = place_of or (lambda row: (name, row))
    column = given.get("column")
    if not isinstance(column, str):
        raise ValueError(f"column is needed: the one of {name} that holds the texts")
    where: Mapping[str, Any] = given.get("where") or {}
    groups = given.get("groups")
    label = groups.get("column") if isinstance(groups, dict) else None
    labels = [label] if isinstance(label, str) else []
    columns = columns_of(list(dict.fromkeys([column, *where, *labels])))
    rows = len(columns[column])
    chosen = _matching(columns, where, rows, name)
    texts = [_text(columns[column][row], *place(row), column) for row in chosen]
    found = {one: [_label(columns[one][row], *place(row), one) for row in chosen] for one in labels}
    return ReadTexts(texts, found, rows)


def unknown_column(name: str, column: str, known: Sequence[str]) -> NoReturn:
    """Raise ValueError for a column that a table does not have."""
    names = did_you_mean(column, known) if known else ": it has none at all"
    raise ValueError(f"{name} has no column {column!r}{names}")


def twice_a_column(name: str, column: str, times: int) -> NoReturn:
    """Raise ValueError for a name that several columns of a table have."""
    raise ValueError(f"{name} has {times} columns {column!r}; rename all but one")


def refuse_row(name: str, row: int, column: str | None, what: str) -> NoReturn:
    """Raise ValueError for one row; ``row`` counts from 0."""
    place = f", column {column}" if column is not None else ""
    raise ValueError(f"{name}, row {row + 1:,}{place}: {what}")


def check_rows(name: str, rows: int) -> None:
    """Raise ValueError for a table that is too long."""
    if rows > ROWS_MAX:
        raise ValueError(f"{name} has more than {ROWS_MAX:,} rows; split it")


def _matching(columns: Columns, where: Mapping[str, Any], rows: int, name: str) -> Sequence[int]:
    """Return the rows that a filter leaves, in their order. Raises ValueError for none."""
    if not rows:
        raise ValueError(f"{name} has no rows")
    chosen: Sequence[int] = range(rows)
    for column, asked in where.items():
        wanted = asked if isinstance(asked, list | tuple) else [asked]
        keys = {_comparable(value) for value in wanted}
        values = columns[column]
        left = [row for row in chosen if _comparable(values[row]) in keys]
        if not left:
            words = " or ".join(repr(value)[:60] for value in wanted[:VALUES_SHOWN])
            words += " or …" if len(wanted) > VALUES_SHOWN else ""
            of_rest = "" if len(chosen) == rows else " among the rows that are left"
            found = _found(values[row] for row in chosen)
            raise ValueError(f"no row of {name} has {column} {words}{of_rest}; found {found}")
        chosen = left
    return chosen


def _comparable(value: object) -> tuple[str, object]:
    """Return a form in which 1, 1.0 and the text "1" of a CSV are the same, and true is none."""
    if isinstance(value, bool):
        return ("word", str(value).lower())
    if isinstance(value, int | float):
        return ("word", repr(value).removesuffix(".0"))
    return ("word", value) if isinstance(value, str) else ("nothing", None)


def _found(values: Any) -> str:
    counted = Counter("nothing" if value is None else repr(value)[:60] for value in values)
    shown = [f"{value} ({count:,} rows)" for value, count in counted.most_common(VALUES_SHOWN)]
    more = f" and {len(counted) - len(shown):,} others" if len(counted) > len(shown) else ""
    return f"{', '.join(shown)}{more}"


def _text(value: object, name: str, row: int, column: str) -> str:
    if value is None:
        refuse_row(name, row, column, "no text; leave the row out, or choose others with where")
    if not isinstance(value, str):
        refuse_row(name, row, column, f"expected text, found {str(value)[:60]}")
    if not value.strip():
        refuse_row(name, row, column, "a blank text; leave the row out")
    return _as_text(value, name, row, column)


def _as_text(value: str, name: str, row: int, column: str) -> str:
    if "\0" in value or not is_encodable(value):
        refuse_row(name, row, column, "a character that is no text (U+0000 or half a pair)")
    return value


def _label(value: object, name: str, row: int, column: str) -> str:
    if value is None or value == "":
        refuse_row(name, row, column, "no label of groups")
    return _as_text(str(value), name, row, column)
