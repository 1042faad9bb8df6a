"""Watches (``-w``): changes since the last look, printed as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from loopscope.context import now
from loopscope.reports.tables.listing import listing
from loopscope.reports.text_table import TextTable
from loopscope.specs.keys import Key
from loopscope.state.db import jobs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord
from loopscope.terminal.printable import printable
from loopscope.views.jobs import job_detail
from loopscope.views.present import present, present_jobs
from loopscope.views.stages import by_owner

POLL_SECONDS = 0.5
PROGRESS_SECONDS = 5.0
"""A line that differs in its progress only is printed this often."""
_VOLATILE = ("AGE", "PROGRESS")

Select = Callable[[Connection], list[ObjectRecord]]


def changes_of(state: StateFolder, select: Select) -> Iterator[list[ObjectRecord]]:
    """Yield what ``select`` finds, then what of it is new or changed, again and again.

    Nothing is yielded while nothing changed. An object that is gone is yielded no more.
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
            version = newest
            if fresh:
                yield fresh
        time.sleep(POLL_SECONDS)


@dataclass
class WatchedTable:
    """The table of ``get -w``: the head once, then one line for each object that changed."""

    state: StateFolder
    kind: str
    namespace: str
    select: Select
    wide: bool = False
    _shown: dict[Key, list[str]] = field(default_factory=dict)
    _shown_at: dict[Key, float] = field(default_factory=dict)
    _widths: list[int] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Return the lines that are due since the last call."""
        table, keys = self._table()
        if not self._widths:
            self._widths = [len(column) for column in table.columns]
            for row in table.rows:
                self._widen(row)
            yield self._line(table.columns)
        for key in [key for key in self._shown if key not in keys]:
            del self._shown[key]
            yield f"{key} deleted"
        for key, row in zip(keys, table.rows, strict=True):
            if self._is_due(key, row, table.columns):
                self._widen(row)
                self._shown[key], self._shown_at[key] = row, time.monotonic()
                yield self._line(row)

    def _table(self) -> tuple[TextTable, list[Key]]:
        with self.state.database.read() as connection:
            records = present(connection, self.select(connection))
            everything = objects.listed(connection, namespace=self.namespace)
            owned = by_owner(present(connection, everything))
            progress = jobs.progress_of(connection)
            under_way = present_jobs(connection, jobs.running(connection))
            running = {job.digest: job for job in under_way if job.state == "running"}
        at = now()
        table = listing(self.kind, records, now=at, children=owned, wide=self.wide)
        rows = []
        for record, row in zip(records, table.rows, strict=True):
            job = next((running[d] for d in _digests(record, owned) if d in running), None)
            detail = job_detail(job, progress.get(job.id), now=at) if job is not None else "-"
            rows.append([*row, detail])
        return TextTable([*table.columns, "PROGRESS"], rows), [record.key for record in records]

    def _is_due(self, key: Key, row: list[str], columns: Sequence[str]) -> bool:
        before = self._shown.get(key)
        if before is None:
            return True
        differs = {c for c, old, new in zip(columns, before, row, strict=True) if old != new}
        if differs - set(_VOLATILE):
            return True
        return "PROGRESS" in differs and time.monotonic() >= self._shown_at[key] + PROGRESS_SECONDS

    def _widen(self, row: Sequence[str]) -> None:
        self._widths = [max(w, len(cell)) for w, cell in zip(self._widths, row, strict=True)]

    def _line(self, row: Sequence[str]) -> str:
        cells = (cell.ljust(width) for cell, width in zip(row, self._widths, strict=True))
        return printable("   ".join(cells).rstrip())


def _digests(record: ObjectRecord, owned: dict[str, list[ObjectRecord]]) -> Iterator[str]:
    """Yield what an object and all that it owns want."""
    if record.wanted_digest:
        yield record.wanted_digest
    for child in owned.get(record.uid, ()):
        yield from _digests(child, owned)
