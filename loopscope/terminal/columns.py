"""A table on a terminal, as kubectl prints it."""

from __future__ import annotations

from loopscope.reports.text_table import TextTable
from loopscope.terminal.printable import printable


def show(table: TextTable, *, headers: bool = True) -> None:
    """Print a table as kubectl does: padded columns, nothing cut off."""
    rows = [table.columns, *table.rows] if headers else table.rows
    if not rows:
        return
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(printable("   ".join(padded).rstrip()))
