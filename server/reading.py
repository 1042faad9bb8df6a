"""Reading: one object, and lists in pages."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from loopscope.server.answers import Refused, encoded, not_found
from loopscope.server.choosing import Choice, whole_number
from loopscope.server.documents import Seen, Shape, listed, seen
from loopscope.server.resources import Resource
from loopscope.server.stored import stored_list
from loopscope.specs.json_values import JsonObject
from loopscope.specs.keys import Key
from loopscope.state.db import objects, pages
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord, ObjectText

ROWS_PER_STATEMENT = 500
ROWS_AT_FIRST = 20
PART_BYTES = 512 * 1024
"""Of a list in the making: as many objects are read at once as such a part will hold, by the size
of those before, since their sizes differ by a thousand times and slow clients hold a part each."""
_BEGIN, _END = b'{"": [', b"]}"
Last = tuple[str, str] | None
"""Namespace and name of the last object of a page that others may follow."""
Row = TypeVar("Row", ObjectRecord, ObjectText)
Made = TypeVar("Made")


class Place(NamedTuple):
    """Where the next page of a list begins; ``version`` is that of its first page."""

    version: int
    namespace: str
    name: str


def get_one(
    state: StateFolder, resource: Resource, namespace: str, name: str, shape: Shape
) -> Seen:
    """Return one object; raises Refused."""
    with state.database.read() as connection:
        record = objects.get(connection, Key(resource.kind, namespace, name))
        if record is None:
            raise not_found(resource.plural, name)
        return seen(connection, [record], with_owned=shape.as_table)[0]


def get_list(
    state: StateFolder, choice: Choice, query: Mapping[str, str], shape: Shape, *, now: float
) -> Iterator[bytes]:
    """Yield a page of a list, or all of it, as JSON in pieces.

    Parts are read one after the other while others write, and no sooner than the client takes
    them. They bear the version of the first, as pages do, so that a watch from there brings what
    has changed since. Raises Refused with the first piece: 410 once that version is too old.
    """
    limit = whole_number(query, "limit") or None  # 0, as clients of Go send it, is no limit
    start = _place(query.get("continue", ""))
    kind, version = choice.resource.kind, _version(state, start)
    parts = _Parts(state, choice, start, limit)
    if choice.fields or choice.only_key is not None or _columns_vary(choice, shape):
        found, last = parts.records()
        metadata = _metadata(version, last)
        with state.database.read() as connection:
            rows = seen(connection, found, with_owned=shape.as_table)
        yield encoded(listed(kind, rows, shape, now=now, metadata=metadata))
        return
    last, before = None, _beginning(kind, shape, now)
    for made, reached in parts.rows(shape, now) if shape.as_table else parts.wholes():
        last = reached
        if made:
            made = before + made  # noqa: PLW2901 # what waits for a client is held once
            yield made
            before = b", "
    ending = encoded({"metadata": _metadata(version, last)})
    yield (b"" if before == b", " else before) + b"], " + ending[1:]


def _beginning(kind: str, shape: Shape, now: float) -> bytes:
    """Return what stands before the first object of a list; its metadata come last."""
    empty = listed(kind, [], shape, now=now, metadata={})
    del empty["metadata"]
    return encoded(empty).removesuffix(_END)


def _metadata(version: int, last: Last) -> JsonObject:
    further: JsonObject = {} if last is None else {"continue": _token(Place(version, *last))}
    return {"resourceVersion": str(version), **further}


def _version(state: StateFolder, start: Place | None) -> int:
    """Return the version of a list, that of its first page; raises Refused once it is too old."""
    with state.database.read() as connection:
        if start is None:
            return objects.resource_version(connection)
        _refuse_expired(connection, start.version)
        return start.version


def _columns_vary(choice: Choice, shape: Shape) -> bool:
    """Whether all rows must be known before the first is made: a sweep adds a column to all."""
    return shape.as_table and choice.resource.kind == "Experiment"


@dataclass(frozen=True)
class _Parts:
    """The chosen objects behind a place, at most ``limit``, part by part.

    Each part comes with the last of its objects where the limit was reached and more may follow.
    """

    state: StateFolder
    choice: Choice
    start: Place | None
    limit: int | None

    def records(self) -> tuple[list[ObjectRecord], Last]:
        """Return them all, and the last."""
        only = self.choice.only_key
        if only is not None:
            with self.state.database.read() as connection:
                record = objects.get(connection, only)
            return ([record] if record is not None and self.choice.holds(record) else []), None
        found: list[ObjectRecord] = []
        last: Last = None
        for part, reached in self._read_on(pages.page, self.choice.holds, lambda _, rows: rows):
            found, last = found + part, reached
        return found, last

    def rows(self, shape: Shape, now: float) -> Iterator[tuple[bytes, Last]]:
        """Yield the rows of a table as JSON: so many records are not held at once."""

        def made(connection: Connection, part: list[ObjectRecord]) -> bytes:
            rows = seen(connection, part, with_owned=False)
            document = listed(self.choice.resource.kind, rows, shape, now=now, metadata={})
            return encoded({"": document["rows"]})[len(_BEGIN) : -len(_END)]

        return self._read_on(pages.page, self.choice.holds, made)

    def wholes(self) -> Iterator[tuple[bytes, Last]]:
        """Yield the same as JSON, made from the text that is stored."""
        return self._read_on(pages.texts, self.choice.holds_text, stored_list)

    def _read_on(
        self,
        read: Callable[..., list[Row]],
        holds: Callable[[Row], bool],
        make: Callable[[Connection, list[Row]], Made],
    ) -> Iterator[tuple[Made, Last]]:
        return iter(_Walk(self, read, holds, make).part, None)


class _Walk(Generic[Row, Made]):
    """A list in the making. Between two parts it holds the place where the next begins, no rows."""

    def __init__(
        self,
        parts: _Parts,
        read: Callable[..., list[Row]],
        holds: Callable[[Row], bool],
        make: Callable[[Connection, list[Row]], Made],
    ) -> None:
        self._parts = parts
        self._read: Callable[..., list[Row]] = read
        self._holds: Callable[[Row], bool] = holds
        self._make: Callable[[Connection, list[Row]], Made] = make
        start = parts.start
        self._after: Last = (start.namespace, start.name) if start is not None else None
        self._left = parts.limit
        self._rows_max = min(ROWS_AT_FIRST, ROWS_PER_STATEMENT)
        self._ended = False

    def part(self) -> tuple[Made, Last] | None:
        """Return the next part, None behind the last."""
        if self._ended:
            return None
        kind, namespace = self._parts.choice.resource.kind, self._parts.choice.namespace
        with self._parts.state.database.read() as connection:
            rows = self._read(
                connection, kind, namespace, after=self._after, rows_max=self._rows_max
            )
            chosen = [n for n, row in enumerate(rows, 1) if self._holds(row)][: self._left]
            made = self._make(connection, [rows[number - 1] for number in chosen])
        more = len(rows) == self._rows_max
        if self._left is not None:
            self._left -= len(chosen)
            if self._left == 0:
                self._ended = True
                last = rows[chosen[-1] - 1].key
                more = more or chosen[-1] < len(rows)
                return made, (last.namespace, last.name) if more else None
        self._ended = not more
        if more:
            self._after = (rows[-1].key.namespace, rows[-1].key.name)
        if isinstance(made, bytes) and chosen:
            fitting = PART_BYTES * len(chosen) // len(made)
            self._rows_max = max(1, min(fitting, ROWS_PER_STATEMENT))
        return made, None


def _token(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _place(token: str) -> Place | None:
    if not token:
        return None
    try:
        version, namespace, name = json.loads(base64.urlsafe_b64decode(token.encode()))
        return Place(int(version), str(namespace), str(name))
    except (ValueError, TypeError, OverflowError):
        raise Refused(400, "continue: not a token that this server gave") from None


def _refuse_expired(connection: Connection, version: int) -> None:
    try:
        objects.refuse_gone(connection, version)
    except objects.Gone as gone:
        raise Refused(410, f"The provided continue parameter is too old: {gone}") from None
