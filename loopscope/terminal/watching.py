"""Watches (``-w``): changes since the last look, printed as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from loopscope.context import now
from loopscope.reports.text_table import TextTable
from loopscope.specs.keys import Key
from loopscope.state.db import jobs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord
from loopscope.terminal.object_tables import TableForm, object_table
from loopscope.terminal.printable import printable
from loopscope.views.jobs import job_detail
from loopscope.views.present import present, present_jobs
from loopscope.views.stages import by_owner

POLL_SECONDS = 0.5
PROGRESS_SECONDS = 5.0
"""A line that differs in its progress only is printed this often."""
ABSENT = "-"
"""A cell of a column that an object has nothing in."""

Select = Callable[[Connection], list[ObjectRecord]]


def changes_of(
    state: StateFolder, select: Select, *, only_changes: bool = False
) -> Iterator[list[ObjectRecord]]:
    """Yield what ``select`` finds, then what of it is new or changed, again and again.

    ``only_changes``: what there is at first is left out. Nothing is yielded while nothing changed.
    An object that is gone is yielded no more.
    """
    known: dict[Key, int] = {}
    version = -1
    while True:
        with state.database.read() as connection:
            newest = objects.resource_version(connection)
            records = select(connection) if newest != version else []
        if newest != version:
            fresh = [r for r in records if known.get(r.key) != r.resource_version]
            known = {r.key: r.resource_version for r in records}
            is_first, version = version < 0, newest
            if fresh and not (is_first and only_changes):
                yield fresh
        time.sleep(POLL_SECONDS)


@dataclass
class ChangedRows:
    """The lines of a table that is read again and again: its head once, then rows that changed.

    Changes of ``ages`` alone are worth no line; those of ``slow`` one at most every
    ``PROGRESS_SECONDS``.
    """

    headers: bool = True
    only_changes: bool = False
    """What there is at first is not printed."""
    ages: Sequence[str] = ("AGE",)
    slow: Sequence[str] = ("PROGRESS",)
    _shown: dict[Hashable, list[str]] = field(default_factory=dict)
    _shown_at: dict[Hashable, float] = field(default_factory=dict)
    _columns: list[str] = field(default_factory=list)
    _widths: list[int] = field(default_factory=list)

    def lines(
        self, table: TextTable, keys: Sequence[Hashable], farewell: Callable[[Hashable], str]
    ) -> Iterator[str]:
        """Return the lines that are due; ``farewell`` says what became of a key that is gone."""
        if not self._columns and self.only_changes:
            self._shown = dict(zip(keys, table.rows, strict=True))
            self._shown_at = dict.fromkeys(keys, time.monotonic())
        if self._columns != table.columns:
            yield from self._head(table)
        for key in [key for key in self._shown if key not in keys]:
            del self._shown[key]
            yield farewell(key)
        for key, row in zip(keys, table.rows, strict=True):
            if self._is_due(key, row, table.columns):
                self._widen(row)
                self._shown[key], self._shown_at[key] = row, time.monotonic()
                yield self._line(row)

    def _head(self, table: TextTable) -> Iterator[str]:
        """Begin a table, and another one where what there is now has other columns."""
        for key, row in self._shown.items():
            before = dict(zip(self._columns or table.columns, row, strict=True))
            self._shown[key] = [before.get(column, ABSENT) for column in table.columns]
        self._columns = table.columns
        self._widths = [len(column) if self.headers else 0 for column in table.columns]
        for row in table.rows:
            self._widen(row)
        if self.headers:
            yield self._line(table.columns)

    def _is_due(self, key: Hashable, row: list[str], columns: Sequence[str]) -> bool:
        before = self._shown.get(key)
        if before is None:
            return True
        differs = {c for c, old, new in zip(columns, before, row, strict=True) if old != new}
        if differs.difference(self.ages, self.slow):
            return True
        is_slow = not differs.isdisjoint(self.slow)
        return is_slow and time.monotonic() >= self._shown_at[key] + PROGRESS_SECONDS

    def _widen(self, row: Sequence[str]) -> None:
        self._widths = [max(w, len(cell)) for w, cell in zip(self._widths, row, strict=True)]

    def _line(self, row: Sequence[str]) -> str:
        cells = (cell.ljust(width) for cell, width in zip(row, self._widths, strict=True))
        return printable("   ".join(cells).rstrip())


@dataclass
class WatchedTable:
    """The table of ``get -w``: the head once, then one line for each object that changed."""

    state: StateFolder
    kind: str
    namespace: str | None
    select: Select
    form: TableForm = field(default_factory=TableForm)
    only_changes: bool = False
    """What there is at first is not printed."""

    def __post_init__(self) -> None:
        self._rows = ChangedRows(self.form.headers, self.only_changes)

    def lines(self) -> Iterator[str]:
        """Return the lines that are due since the last call."""
        yield from self._rows.lines(*self._table(), lambda key: f"{key} deleted")

    def _table(self) -> tuple[TextTable, list[Key]]:
        with self.state.database.read() as connection:
            records = present(connection, self.select(connection))
            everything = objects.listed(connection, namespace=self.namespace)
            owned = by_owner(present(connection, everything))
            progress = jobs.progress_of(connection)
            under_way = present_jobs(connection, jobs.running(connection))
            running = {job.digest: job for job in under_way if job.state == "running"}
        at = now()
        table = object_table(self.kind, records, owned, self.form)
        rows = []
        for record, row in zip(records, table.rows, strict=True):
            job = next((running[d] for d in _digests(record, owned) if d in running), None)
            detail = job_detail(job, progress.get(job.id), now=at) if job is not None else "-"
            rows.append([*row, detail])
        return TextTable([*table.columns, "PROGRESS"], rows), [record.key for record in records]


def _digests(record: ObjectRecord, owned: dict[str, list[ObjectRecord]]) -> Iterator[str]:
    """Yield what an object and all that it owns want."""
    if record.wanted_digest:
        yield record.wanted_digest
    for child in owned.get(record.uid, ()):
        yield from _digests(child, owned)
