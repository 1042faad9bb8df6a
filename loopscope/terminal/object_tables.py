"""The table of ``get`` as its options want it: namespaces, kinds, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.context import now
from loopscope.reports.tables.listing import Children, listing
from loopscope.reports.text_table import TextTable
from loopscope.state.records import ObjectRecord
from loopscope.terminal.documents import NOTHING


@dataclass(frozen=True)
class TableForm:
    """What stands in the table beside the columns of the kind.

    ``kinds``: the kind before each name, where several kinds are printed; ``columns``: labels that
    have a column of their own.
    """

    wide: bool = False
    namespaces: bool = False
    kinds: bool = False
    labels: bool = False
    columns: tuple[str, ...] = ()
    headers: bool = True


def object_table(
    kind: str, records: Sequence[ObjectRecord], children: Children, form: TableForm
) -> TextTable:
    """Return the table of objects of one kind."""
    table = listing(
        kind,
        records,
        now=now(),
        children=children,
        wide=form.wide,
        namespaces=form.namespaces,
    )
    name = table.columns.index("NAME")
    rows = []
    for record, row in zip(records, table.rows, strict=True):
        cells = list(row)
        if form.kinds:
            cells[name] = f"{kind.lower()}/{cells[name]}"
        cells += [record.labels.get(label, NOTHING) for label in form.columns]
        rows.append([*cells, _labels(record)] if form.labels else cells)
    own = [label.rpartition("/")[2].upper() for label in form.columns]
    return TextTable([*table.columns, *own, *(["LABELS"] if form.labels else [])], rows)


def _labels(record: ObjectRecord) -> str:
    return ",".join(f"{name}={text}" for name, text in sorted(record.labels.items())) or NOTHING
