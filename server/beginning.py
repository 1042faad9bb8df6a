"""The beginning of a watch: what there is, page by page, or what a client has missed.

Many watches begin at once where a server starts again. What they missed is read once for those that
ask alike, and is let go of when the last of them was told; pages are lines before they wait for a
client, for records take several times their room.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from starlette.concurrency import run_in_threadpool

from loopscope.server.answers import Refused, encoded
from loopscope.server.changes import Batch, ChangeReader
from loopscope.server.choosing import Choice
from loopscope.server.documents import Shape, seen, shaped
from loopscope.server.stored import stored_wholes
from loopscope.specs.keys import Key
from loopscope.state.db import objects, pages
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord

ROWS_MAX = 100
"""Objects of a page. Each watch that begins holds one page, and its client may be slow."""
Last = tuple[str, str] | None
"""Namespace and name of the last object of a page that others may follow."""


class Page(NamedTuple):
    """Some of what there is: each object's version, and its line."""

    version: int
    """The newest of all objects when the page was read."""
    versions: Mapping[Key, int]
    lines: list[bytes]
    last: Last


class Beginnings:
    """The beginnings of all watches of a server. Used in the event loop's thread."""

    def __init__(self, state: StateFolder, reader: ChangeReader, now: Callable[[], float]) -> None:
        self._state = state
        self._reader = reader
        self._now = now
        self._reading = asyncio.Lock()
        self._missed: WeakValueDictionary[Hashable, Batch] = WeakValueDictionary()

    async def missed(self, choice: Choice, version: int) -> Batch:
        """Return what happened to the chosen objects after a version; raises Refused (410)."""
        asked = (choice.scope, version)
        async with self._reading:
            found = self._missed.get(asked)
            if found is None or found.upto < self._reader.version:
                try:
                    found = await run_in_threadpool(self._reader.since, choice, version)
                except objects.Gone as gone:
                    raise Refused(410, f"too old resource version: {version} ({gone})") from None
                self._missed[asked] = found
        return found

    async def present(self, choice: Choice, shape: Shape) -> AsyncIterator[Page]:
        """Yield what there is."""
        page = await run_in_threadpool(self._page, choice, shape, None)
        while True:
            yield page
            if page.last is None:
                return
            page = await run_in_threadpool(self._page, choice, shape, page.last)

    def _page(self, choice: Choice, shape: Shape, after: Last) -> Page:
        with self._state.database.read() as connection:
            version = objects.resource_version(connection)
            if choice.fields or choice.only_key is not None or shape.as_table:
                rows, found, lines = self._from_records(connection, choice, shape, after)
            else:
                rows, found, lines = _from_texts(connection, choice, after)
        last = (rows[-1].namespace, rows[-1].name) if len(rows) == ROWS_MAX else None
        return Page(version, found, lines, last)

    def _from_records(
        self, connection: Connection, choice: Choice, shape: Shape, after: Last
    ) -> tuple[list[Key], dict[Key, int], list[bytes]]:
        records = _records(connection, choice, after)
        fitting = [record for record in records if choice.holds(record)]
        shown = seen(connection, fitting, with_owned=shape.as_table)
        now = self._now()
        lines = [
            encoded({"type": "ADDED", "object": shaped(one, shape, now=now)}) + b"\n"
            for one in shown
        ]
        versions = {record.key: record.resource_version for record in fitting}
        return [record.key for record in records], versions, lines


def _records(connection: Connection, choice: Choice, after: Last) -> Sequence[ObjectRecord]:
    if choice.only_key is not None:
        one = objects.get(connection, choice.only_key)
        return [one] if one is not None else []
    kind, namespace = choice.resource.kind, choice.namespace
    return pages.page(connection, kind, namespace, after=after, rows_max=ROWS_MAX)


def _from_texts(
    connection: Connection, choice: Choice, after: Last
) -> tuple[list[Key], dict[Key, int], list[bytes]]:
    kind, namespace = choice.resource.kind, choice.namespace
    texts = pages.texts(connection, kind, namespace, after=after, rows_max=ROWS_MAX)
    fitting = [text for text in texts if choice.holds_text(text)]
    wholes = stored_wholes(connection, fitting)
    lines = [f'{{"type": "ADDED", "object": {whole}}}\n'.encode() for whole in wholes]
    versions = {text.key: text.resource_version for text in fitting}
    return [text.key for text in texts], versions, lines
