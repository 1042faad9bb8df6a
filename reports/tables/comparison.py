"""The table of ``compare``: two experiments in two columns, a row for each thing that differs."""

from __future__ import annotations

from loopscope.reports.text_table import TextTable
from loopscope.views.comparison import ComparisonView
from loopscope.views.comparison_rows import comparison_parts


def comparison_table(first: str, second: str, view: ComparisonView) -> TextTable:
    """Return what differs, and the latents, under the names of the two."""
    parts = comparison_parts(view)
    rows = [[row.what, row.first, row.second] for part in parts for row in part.rows]
    rows += [["note", "", part.note] for part in parts if part.note]
    return TextTable(["WHAT", first.upper(), second.upper()], rows)
