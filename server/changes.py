"""Changes of objects, read from the change log once for all watchers.

The log holds names and versions, the objects only their present state. So several changes of one
object between two looks are one: its state now, at its last version. What an object was before,
without its spec, is kept in memory, so that a watcher learns what it was when it is deleted.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from loopscope.server.answers import encoded
from loopscope.server.choosing import Choice
from loopscope.server.documents import Seen, Shape, seen, shaped
from loopscope.specs.keys import Key
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.status import Status
from loopscope.state.db import objects, pages
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import ChangeRecord, ObjectRecord, ObjectText

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]
ROWS_MAX = 500
REMEMBERED_MAX = 1000
"""Deleted objects that are remembered for those who resume."""


class Kept(NamedTuple):
    """An object as it was, without its spec, which may hold thousands of texts; in little room."""

    text: ObjectText
    status: bytes
    """Of the text, which holds none: compressed, for most are never asked for."""

    @staticmethod
    def of(text: ObjectText) -> Kept:
        """Keep an object."""
        return Kept(text._replace(spec="{}", status=""), zlib.compress(text.status.encode(), 1))

    @property
    def record(self) -> ObjectRecord:
        """The object as it was."""
        return self.text._replace(status=zlib.decompress(self.status).decode()).record


@dataclass(frozen=True)
class Change:
    """What became of one object."""

    type: ChangeType
    object: Seen
    """As it is now; of a deleted one, as it was, with the version of the deletion."""
    before: Kept | None = None
    came: int | None = None
    """The version that created it, if that is among the changes of the same look."""
    _lines: dict[tuple[str, Shape], bytes] = field(default_factory=dict, repr=False, compare=False)

    @property
    def version(self) -> int:
        """The version that the change made."""
        return self.object.record.resource_version

    @property
    def key(self) -> Key:
        """The object's name."""
        return self.object.record.key

    def line(self, word: str, shape: Shape, *, now: float) -> bytes:
        """Return the line of a watch; made once for all watchers that asked for this form."""
        found = self._lines.get((word, shape))
        if found is None:
            document = {"type": word, "object": shaped(self.object, shape, now=now)}
            found = self._lines[word, shape] = encoded(document) + b"\n"
        return found


@dataclass(frozen=True)
class Batch:
    """All changes up to a version, in their order, since the batch before."""

    upto: int
    changes: tuple[Change, ...]


def word_for(change: Change, choice: Choice) -> ChangeType | None:
    """Return what a change is to a watcher of this choice; None if it is nothing to it."""
    if not choice.may_hold(change.key):
        return None
    fits_now = change.type != "DELETED" and choice.holds(change.object.record)
    match change.type:
        case "ADDED":
            return "ADDED" if fits_now else None
        case "DELETED":
            known = change.before
            return "DELETED" if known is None or choice.holds(known.record) else None
        case "MODIFIED":
            if not choice.changes_with_time:
                return "MODIFIED"
            if change.before is None:  # not known: who never had it loses nothing
                return "MODIFIED" if fits_now else "DELETED"
            fitted = choice.holds(change.before.record)
            if fits_now:
                return "MODIFIED" if fitted else "ADDED"
            return "DELETED" if fitted else None


class ChangeReader:
    """Reads the change log forward. One thread at a time calls ``begin`` and ``look``."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self.version = 0
        self._known: dict[Key, Kept] = {}
        self._deleted: OrderedDict[Key, Kept] = OrderedDict()

    def begin(self) -> None:
        """Read what there is now, and forget what was."""
        known: dict[Key, Kept] = {}
        with self._state.database.read() as connection:
            self.version = objects.resource_version(connection)
            for kind in SPEC_BY_KIND:
                after: tuple[str, str] | None = None
                while rows := pages.texts(
                    connection, kind, None, after=after, rows_max=ROWS_MAX, with_specs=False
                ):
                    known.update({row.key: Kept.of(row) for row in rows})
                    after = (rows[-1].key.namespace, rows[-1].key.name)
        self._known = known

    def look(self) -> Batch:
        """Return what changed since the last look. Raises Gone."""
        with self._state.database.read() as connection:
            newest = objects.resource_version(connection)
            if newest == self.version:
                return Batch(newest, ())
            logged = objects.changes_since(connection, self.version)
            now = _seen_by_key(connection, logged)
        changes = [one for life in _lives(logged) for one in self._change(life, now)]
        for key in {one.key for one in logged}:
            self._remember(key, now.get(key))
        self.version = newest
        return Batch(newest, tuple(changes))

    def since(self, choice: Choice, version: int) -> Batch:
        """Return what happened to the chosen objects after a version. Raises Gone.

        May be called from any thread.
        """
        with self._state.database.read() as connection:
            newest = objects.resource_version(connection)
            logged = objects.changes_since(connection, version)
            logged = [one for one in logged if choice.may_hold(one.key)]
            now = _seen_by_key(connection, logged)
        changes: list[Change] = []
        for life in _lives(logged):
            found = None if life.ended else now.get(life.key)
            if found is not None:
                changes.append(Change("ADDED" if life.came else "MODIFIED", found))
            elif not life.came:
                known = self._deleted.get(life.key)
                changes.append(Change("DELETED", _gone(known, life), known))
        return Batch(newest, tuple(changes))

    def _change(self, life: Life, now: Mapping[Key, Seen]) -> Iterator[Change]:
        known = None if life.came else self._known.get(life.key)
        found = None if life.ended else now.get(life.key)
        if found is None:
            yield Change("DELETED", _gone(known, life), known, life.came)
        elif life.came:
            yield Change("ADDED", found, came=life.came)
        else:
            yield Change("MODIFIED", found, known)

    def _remember(self, key: Key, found: Seen | None) -> None:
        if found is not None:
            self._known[key] = Kept.of(ObjectText.of(replace(found.record, spec={})))
            return
        known = self._known.pop(key, None)
        if known is not None:
            self._deleted[key] = known
            self._deleted.move_to_end(key)
            if len(self._deleted) > REMEMBERED_MAX:
                self._deleted.popitem(last=False)


def _gone(known: Kept | None, life: Life) -> Seen:
    if known is not None:
        return Seen(replace(known.record, resource_version=life.last))
    return Seen(ObjectRecord(life.key, "", 0, life.last, {}, Status(), 0.0))


@dataclass(frozen=True)
class Life:
    """What the log says of one object of a name; another of the same name has a life of its own.

    ``came`` is the version that created it, None if that was before; ``last`` that of its newest
    change, which ``ended`` it or did not.
    """

    key: Key
    came: int | None
    last: int
    ended: bool


def _lives(logged: Sequence[ChangeRecord]) -> list[Life]:
    """Return the lives that a part of the log tells of, by their newest changes."""
    ended: list[Life] = []
    open_: dict[Key, Life] = {}
    for one in logged:
        before = open_.pop(one.key, None)
        came = before.came if before else one.resource_version if one.type == "ADDED" else None
        life = Life(one.key, came, one.resource_version, one.type == "DELETED")
        if life.ended:
            ended.append(life)
        else:
            open_[one.key] = life
    return sorted([*ended, *open_.values()], key=lambda one: one.last)


def _seen_by_key(connection: Connection, logged: Sequence[ChangeRecord]) -> Mapping[Key, Seen]:
    records = objects.get_all(connection, {one.key for one in logged})
    return {one.record.key: one for one in seen(connection, records, with_owned=True)}
