"""``logs``: the lines that workers logged about an object's jobs."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from loopscope.context import CommandError, find, split_name
from loopscope.state.db import jobs
from loopscope.state.folder import StateFolder
from loopscope.state.workers import log_before, log_paths
from loopscope.terminal.printable import printable

POLL_SECONDS = 0.5
LINE_BYTES_MAX = 64 * 1024
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STARTS = re.compile(r"\bjob starts\b.*?\bdigest=([0-9a-f]{12})")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("logs")(logs)


def logs(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="KIND NAME", help="The object, or experiment.")
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", min=0, help="Only so many of the last lines.")
    ] = None,
) -> None:
    """Print what the workers wrote while they ran the jobs of an object, or of all it owns."""
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"logs needs a name: loopscope logs {kind.lower()} NAME")
    state = context.obj.open_to_read()
    digests = _digests(state, kind, context.obj.namespace, name)
    files = [WorkerLogReader(path) for path in log_paths(state.logs)]
    lines = [line for file in files for line in file.new_lines(digests)]
    if not lines and not follow:
        print(f"nothing was written about {kind.lower()}/{name}; worker logs: {state.logs}")
    for line in lines if tail is None else deque(lines, tail):
        print(line)
    while follow and _works(state, digests):
        known = {file.path for file in files}
        new = (path for path in log_paths(state.logs) if path not in known)
        files.extend(WorkerLogReader(path) for path in new)
        for file in files:
            for line in file.new_lines(digests):
                print(line, flush=True)
        time.sleep(POLL_SECONDS)
        digests |= _digests(state, kind, context.obj.namespace, name)
    for file in files if follow else ():
        for line in file.new_lines(digests):
            print(line)


@dataclass
class WorkerLogReader:
    """Reads a worker's log from where the last call ended, the file before it included.

    A line belongs to the job that the worker had started last.
    """

    path: Path
    _offset: int = 0
    _rest: bytes = b""
    _digest: str = ""
    _opened: bool = field(default=False)

    def new_lines(self, digests: set[str]) -> Iterator[str]:
        """Yield the lines about these actions that were written since the last call."""
        wanted = {digest[:12] for digest in digests}
        for raw in self._new():
            line = printable(_COLOUR.sub("", raw.decode(errors="replace")))
            if (start := _STARTS.search(line)) is not None:
                self._digest = start[1]
            if self._digest in wanted:
                yield line

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


def _digests(state: StateFolder, kind: str, namespace: str, name: str) -> set[str]:
    """Return the actions of the object: what it wants now, and what was queued for it before."""
    from loopscope.views.settled import family

    with state.database.read() as connection:
        keys = [record.key for record in find(connection, kind, namespace, name)]
        records = family(connection, keys)
        everything = {record.key for record in records}
        wanted = {record.wanted_digest for record in records if record.wanted_digest}
        queued = {j.digest for j in jobs.listed(connection, ended=True) if j.object in everything}
    return wanted | queued


def _works(state: StateFolder, digests: set[str]) -> bool:
    with state.database.read() as connection:
        return any(job.digest in digests for job in jobs.listed(connection))
