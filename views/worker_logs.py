"""Lines that workers logged about the jobs of an object."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from loopscope.specs.keys import Key
from loopscope.state.db import jobs
from loopscope.state.db.connection import Connection
from loopscope.state.log_files import log_before
from loopscope.views.settled import family

LINE_BYTES_MAX = 64 * 1024
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_WRITTEN = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)")
_STARTS = re.compile(r"\bjob starts\b.*?\bdigest=([0-9a-f]{12})")


def _time_of(text: str) -> datetime | None:
    """Return the time that a worker wrote, in its own zone: that of this machine."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        return None


@dataclass
class WorkerLogReader:
    """Reads a worker's log from where the last call ended, the file before it included.

    A line belongs to the job that the worker had started last.
    """

    path: Path
    earliest: float | None = None
    """Lines that were written before (Unix seconds) are left out."""
    timestamps: bool = False
    """Each line begins with its time in UTC, also one that the worker's log did not begin."""
    _at: datetime | None = None
    _offset: int = 0
    _rest: bytes = b""
    _digest: str = ""
    _opened: bool = field(default=False)

    def new_lines(self, digests: set[str]) -> Iterator[str]:
        """Yield the lines about these actions that were written since the last call."""
        wanted = {digest[:12] for digest in digests}
        for raw in self._new():
            line = _COLOUR.sub("", raw.decode(errors="replace"))
            if (start := _STARTS.search(line)) is not None:
                self._digest = start[1]
            written = _WRITTEN.match(line)
            self._at = _time_of(written[1]) if written is not None else self._at
            if self._digest in wanted and not self._is_too_old:
                yield self._with_time(line, written) if self.timestamps else line

    @property
    def _is_too_old(self) -> bool:
        if self.earliest is None or self._at is None:
            return False
        return self._at.timestamp() < self.earliest

    def _with_time(self, line: str, written: re.Match[str] | None) -> str:
        """Return a line with the time in UTC in place of its own, which is local."""
        at = self._at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if self._at else "-"
        return f"{at} {line[written.end() :].lstrip() if written else line}"

    def _new(self) -> Iterator[bytes]:
        if not self._opened:
            self._opened = True
            before = log_before(self.path)
            if before.is_file():
                yield from before.read_bytes().splitlines()
        try:
            with self.path.open("rb") as stream:
                if stream.seek(0, 2) < self._offset:  # it moved away and a new one began
                    self._offset = 0
                stream.seek(self._offset)
                data = self._rest + stream.read()
                self._offset = stream.tell()
        except FileNotFoundError:
            return
        *lines, self._rest = data.split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            lines, self._rest = [*lines, self._rest], b""
        yield from lines


def action_digests(connection: Connection, keys: Sequence[Key]) -> set[str]:
    """Return the actions of objects and of all that they own: wanted now, and queued before."""
    records = family(connection, keys)
    everything = {record.key for record in records}
    wanted = {record.wanted_digest for record in records if record.wanted_digest}
    queued = {j.digest for j in jobs.listed(connection, ended=True) if j.object in everything}
    return wanted | queued
