"""The test for settled: nothing is left to wait for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    For those who look often: a study owns hundreds, and each of them changes many times.
    """

    keys: Sequence[Key]
    _version: int | None = None
    _records: dict[Key, ObjectRecord] = field(default_factory=dict)

    def read(self, connection: Connection) -> list[ObjectRecord]:
        """Return them as they are in this transaction."""
        version = objects.resource_version(connection)
        if version != self._version:
            if not self._has_kept_up(connection):
                self._records = {one.key: one for one in family(connection, self.keys)}
            self._version = version
        return list(self._records.values())

    def _has_kept_up(self, connection: Connection) -> bool:
        """Read what was modified; return whether that is all that changed since the last look."""
        if self._version is None:
            return False
        try:
            changes = objects.changes_since(connection, self._version)
        except objects.Gone:
            return False
        if any(change.type != "MODIFIED" for change in changes):
            return False
        own = {record.uid for record in self._records.values()}
        for record in objects.get_all(connection, {change.key for change in changes}):
            known = self._records.get(record.key)
            if known is None and record.owner_uid not in own:
                continue
            if known is None or known.owner_uid != record.owner_uid:
                return False  # it came into the family, or left it
            self._records[record.key] = record
        return True


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
