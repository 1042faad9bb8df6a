"""The test for settled: nothing is left to wait for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from loopscope.reconcilers.references import object_references
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.state.db import jobs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.records import UNAVAILABLE, ObjectRecord


def family(connection: Connection, keys: Iterable[Key]) -> list[ObjectRecord]:
    """Return the objects of these keys and all that they own."""
    records = (objects.get(connection, key) for key in keys)
    return _with_owned(connection, (record for record in records if record is not None))


def _with_owned(connection: Connection, records: Iterable[ObjectRecord]) -> list[ObjectRecord]:
    found: list[ObjectRecord] = []
    for record in records:
        found.append(record)
        if record.key.kind in OWNER_KINDS:
            found.extend(_with_owned(connection, objects.owned_by(connection, record.uid)))
    return found


@dataclass
class Family:
    """The objects of some keys and all that they own; read again is what changed since.

    For those who look often: a folder or a study owns thousands, and each changes many times.
    """

    keys: Sequence[Key]
    _version: int | None = None
    _records: dict[Key, ObjectRecord] = field(default_factory=dict)
    _unsettled: dict[Key, ObjectRecord] = field(default_factory=dict)

    @property
    def unsettled(self) -> list[ObjectRecord]:
        """Those of the last read that are neither Ready nor Stalled."""
        return list(self._unsettled.values())

    def read(self, connection: Connection) -> list[ObjectRecord]:
        """Return them as they are in this transaction."""
        version = objects.resource_version(connection)
        if version != self._version:
            if not self._has_kept_up(connection):
                self._records, self._unsettled = {}, {}
                self._take(family(connection, self.keys))
            self._version = version
        return list(self._records.values())

    def is_settled(self, connection: Connection) -> bool:
        """Whether every object is as of the last read, and no job of theirs is left."""
        return not self._unsettled and is_settled(connection, self._records.values())

    def _has_kept_up(self, connection: Connection) -> bool:
        """Read what changed since the last look; return False where all has to be read again."""
        if self._version is None:
            return False
        try:
            changes = objects.changes_since(connection, self._version)
        except objects.Gone:
            return False
        if any(change.type == "DELETED" for change in changes):
            return False
        new = {change.key for change in changes if change.type == "ADDED"}
        changed, strangers = list[ObjectRecord](), list[ObjectRecord]()
        for record in objects.get_all(connection, {change.key for change in changes}):
            known = self._records.get(record.key)
            (strangers if known is None else changed).append(record)
            if known is not None and known.owner_uid != record.owner_uid:
                return False
        self._take(changed)
        born = [record for record in strangers if record.key in new]
        if self._adopt(born):
            self._order()
        return not any(self._is_owned(one) for one in strangers if one.key not in new)

    def _adopt(self, born: Sequence[ObjectRecord]) -> bool:
        """Take in what belongs to the family, owners first; return whether anything did."""
        own, others = list[ObjectRecord](), list[ObjectRecord]()
        for one in born:
            (own if one.key in self.keys or self._is_owned(one) else others).append(one)
        self._take(own)
        if own and others:
            self._adopt(others)
        return bool(own)

    def _is_owned(self, record: ObjectRecord) -> bool:
        owner = self._records.get(record.owner) if record.owner is not None else None
        return owner is not None and owner.uid == record.owner_uid

    def _take(self, records: Iterable[ObjectRecord]) -> None:
        for record in records:
            self._records[record.key] = record
            if record.ready or record.stalled:
                self._unsettled.pop(record.key, None)
            else:
                self._unsettled[record.key] = record

    def _order(self) -> None:
        """Put every object behind its owner again, as ``family`` does."""
        owned: dict[Key, list[ObjectRecord]] = {}
        for record in sorted(self._records.values(), key=lambda one: one.key):
            if self._is_owned(record) and record.owner is not None:
                owned.setdefault(record.owner, []).append(record)

        def walk(key: Key) -> Iterator[ObjectRecord]:
            if key in self._records:
                yield self._records[key]
            for record in owned.get(key, ()):
                yield from walk(record.key)

        self._records = {one.key: one for key in self.keys for one in walk(key)}


def waits_for_unavailable(connection: Connection, records: Iterable[ObjectRecord]) -> bool:
    """Whether nothing that is left can go on, because inputs cannot be reached.

    Objects that these rest on count, too: as long as one of them moves, there is hope.
    """
    todo, seen, found = list(records), set[Key](), False
    while todo:
        record = todo.pop()
        if record.key in seen or record.ready or record.stalled:
            continue
        seen.add(record.key)
        ready = record.status.condition("Ready")
        if ready is None or record.status.observed_generation != record.generation:
            return False
        if record.wanted_digest and jobs.find_active(connection, record.wanted_digest):
            return False
        if ready.reason not in (UNAVAILABLE, "InputsNotReady", "ChildrenNotReady"):
            return False
        found = found or ready.reason == UNAVAILABLE
        todo.extend(objects.get_all(connection, object_references(record)))
    return found


def is_settled(connection: Connection, records: Iterable[ObjectRecord]) -> bool:
    """Whether every object was acted on and is Ready or Stalled, and no job of theirs is left."""
    wanted = set[str | None]()
    for record in records:
        if not (record.ready or record.stalled):  # each only of the generation that is there now
            return False
        wanted.add(record.wanted_digest)
    return wanted.isdisjoint(jobs.active_digests(connection).values())
