"""A table of texts: what a terminal and the page both lay out in columns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextTable:
    """Column names and, for each row, one text a column."""

    columns: list[str]
    rows: list[list[str]]
