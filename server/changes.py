"""Changes of objects, read from the change log once for all watchers.

The log holds names and versions, the objects only their present state. So several changes of one
object between two looks are one: its state now, at its last version. What an object was before,
without its spec, is kept in memory, so that a watcher learns what it was when it is deleted.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from loopscope.server.choosing import Choice
from loopscope.server.documents import Seen, seen
from loopscope.specs.keys import Key
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.status import Status
from loopscope.state.db import objects, pages
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import AppliedRecord, ChangeRecord, ObjectRecord, ObjectText

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]
ROWS_MAX = 500
REMEMBERED_MAX = 1000
"""Deleted objects that are remembered for those who resume."""


class Kept(NamedTuple):
    """An object at one moment in little room: its spec and status may hold thousands of texts."""

    text: ObjectText
    """Without spec and status."""
    spec: bytes
    """Compressed, as is the status: most are never asked for. Empty when it is not kept."""
    status: bytes

    @staticmethod
    def of(text: ObjectText) -> Kept:
        """Keep an object."""
        spec, status = (zlib.compress(one.encode(), 1) for one in (text.spec, text.status))
        return Kept(text._replace(spec="", status=""), spec, status)

    @property
    def without_spec(self) -> Kept:
        """The same object in less room; its spec is empty then."""
        return self._replace(spec=b"")

    @property
    def record(self) -> ObjectRecord:
        """The object as it was."""
        spec = zlib.decompress(self.spec).decode() if self.spec else "{}"
        status = zlib.decompress(self.status).decode()
        return self.text._replace(spec=spec, status=status).record


@dataclass(frozen=True)
class Change:
    """What became of one object. All of a commit lie in memory for as long as one watcher waits."""

    type: ChangeType
    now: Kept
    """The object as it is; of a deleted one, as it was, with the version of the deletion."""
    before: Kept | None = None
    came: int | None = None
    """The version that created it, if that is among the changes of the same look."""
    applied: AppliedRecord | None = None
    owned: Mapping[str, Sequence[Kept]] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """The version that the change made."""
        return self.now.text.resource_version

    @property
    def key(self) -> Key:
        """The object's name."""
        return self.now.text.key

    @property
    def object(self) -> Seen:
        """The object with what its documents need; made anew each time."""
        owned = {uid: [one.record for one in found] for uid, found in self.owned.items()}
        return Seen(self.now.record, self.applied, owned)


@dataclass(frozen=True)
class Batch:
    """All changes up to a version, in their order, since the batch before."""

    upto: int
    changes: tuple[Change, ...]


def word_for(change: Change, choice: Choice) -> ChangeType | None:
    """Return what a change is to a watcher of this choice; None if it is nothing to it."""
    if not choice.may_hold(change.key):
        return None
    fits_now = change.type != "DELETED" and _fits(change.now, choice)
    match change.type:
        case "ADDED":
            return "ADDED" if fits_now else None
        case "DELETED":
            known = change.before
            return "DELETED" if known is None or _fits(known, choice) else None
        case "MODIFIED":
            if not choice.changes_with_time:
                return "MODIFIED"
            if change.before is None:  # not known: who never had it loses nothing
                return "MODIFIED" if fits_now else "DELETED"
            fitted = _fits(change.before, choice)
            if fits_now:
                return "MODIFIED" if fitted else "ADDED"
            return "DELETED" if fitted else None


def _fits(kept: Kept, choice: Choice) -> bool:
    return choice.holds(kept.record) if choice.fields else choice.holds_text(kept.text)


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
                    known.update({row.key: Kept.of(row).without_spec for row in rows})
                    after = (rows[-1].key.namespace, rows[-1].key.name)
        self._known = known

    def look(self) -> Batch:
        """Return what changed since the last look. Raises Gone."""
        with self._state.database.read() as connection:
            newest = objects.resource_version(connection)
            if newest == self.version:
                return Batch(newest, ())
            lives = _lives(objects.changes_since(connection, self.version))
            now = _kept_by_key(connection, lives)
        changes = tuple(self._change(life, now) for life in lives)
        for key in {life.key for life in lives}:
            self._remember(key, now.get(key))
        self.version = newest
        return Batch(newest, changes)

    def since(self, choice: Choice, version: int) -> Batch:
        """Return what happened to the chosen objects after a version. Raises Gone.

        May be called from any thread.
        """
        with self._state.database.read() as connection:
            newest = objects.resource_version(connection)
            logged = objects.changes_since(connection, version)
            lives = _lives([one for one in logged if choice.may_hold(one.key)])
            now = _kept_by_key(connection, lives)
        changes: list[Change] = []
        for life in lives:
            found = None if life.ended else now.get(life.key)
            if found is not None:
                changes.append(replace(found, type="ADDED" if life.came else "MODIFIED"))
            elif not life.came:
                known = self._deleted.get(life.key)
                changes.append(Change("DELETED", _gone(known, life), known))
        return Batch(newest, tuple(changes))

    def _change(self, life: Life, now: Mapping[Key, Change]) -> Change:
        known = None if life.came else self._known.get(life.key)
        found = None if life.ended else now.get(life.key)
        if found is None:
            return Change("DELETED", _gone(known, life), known, life.came)
        if life.came:
            return replace(found, type="ADDED", came=life.came)
        return replace(found, before=known)

    def _remember(self, key: Key, found: Change | None) -> None:
        if found is not None:
            self._known[key] = found.now.without_spec
            return
        known = self._known.pop(key, None)
        if known is not None:
            self._deleted[key] = known
            self._deleted.move_to_end(key)
            if len(self._deleted) > REMEMBERED_MAX:
                self._deleted.popitem(last=False)


def _gone(known: Kept | None, life: Life) -> Kept:
    if known is None:
        record = ObjectRecord(life.key, "", 0, life.last, {}, Status(), 0.0)
        return Kept.of(ObjectText.of(record))
    return known._replace(text=known.text._replace(resource_version=life.last))


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


def _kept_by_key(connection: Connection, lives: Sequence[Life]) -> Mapping[Key, Change]:
    """Return each object that is there as a change of it, read in pages that leave only that."""
    wanted = sorted({life.key for life in lives})
    found: dict[Key, Change] = {}
    for start in range(0, len(wanted), ROWS_MAX):
        records = pages.of_keys(connection, wanted[start : start + ROWS_MAX])
        for one in seen(connection, records, with_owned=True):
            found[one.record.key] = _changed(one)
    return found


def _changed(one: Seen) -> Change:
    owned: dict[str, Sequence[Kept]] = {}
    uids = [one.record.uid]
    while uids:
        uid = uids.pop()
        below = (one.owned or {}).get(uid, ())
        if below:
            owned[uid] = [Kept.of(ObjectText.of(record)) for record in below]
        uids += [record.uid for record in below]
    now = Kept.of(ObjectText.of(one.record))
    return Change("MODIFIED", now, applied=one.applied, owned=owned)
