"""Looks that a change of an object asks for: none that was taken since, none that cannot see it.

A look reads all that its plan rests on in one snapshot of the database, and the versions of the
change log tell which changes that snapshot held. All of this is kept in memory and may vanish:
then everything that a change may concern is looked at once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from loopscope.controller.reconcile.dependants import Dependants
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import OWNER_KINDS, PIPELINE
from loopscope.state.records import ObjectRecord, edition_of

OWNERS_WAIT_ROUNDS_MAX = 2 * len(PIPELINE)
"""So often an owner lets others go first: a change may run through the whole pipeline."""
Waiting = tuple[str, str | None, float]
"""Incarnation, the work that it wants, and since when it is not Ready."""
_PLACE = {node.kind: place for place, node in enumerate(PIPELINE)}


@dataclass
class Looks:
    """Remembers as of which version each object was looked at, and what that answered."""

    dependants: Dependants
    _as_of: dict[Key, int] = field(default_factory=dict)
    """The version of the database that the last finished look at each object read."""
    _answered: dict[Key, int] = field(default_factory=dict)
    """The version of a status after which its own plan has nothing left to do."""
    _editions: dict[Key, str] = field(default_factory=dict)
    """What of each owner the objects that it owns can see, as of the change log."""
    _waiting: dict[Key, Waiting | None] = field(default_factory=dict)
    """What of each object that is not Ready yet those that name it can see, by the change log."""
    _owners: dict[Key, int] = field(default_factory=dict)
    """Owners that wait until what they own has been looked at, with the version to look for."""
    _rounds: int = 0

    def forget_all(self) -> None:
        """Let every change be followed again: versions may be those of another history."""
        for kept in (self._as_of, self._answered, self._editions, self._waiting, self._owners):
            kept.clear()

    def took(self, key: Key, version: int) -> None:
        """Take in that a look at ``key`` ended which had read the database as of ``version``."""
        self._as_of[key] = version

    def answered(self, key: Key, version: int) -> None:
        """Take in that the status written as ``version`` changes nothing in its own plan."""
        self._answered[key] = version

    def asked_for(self, changed: Mapping[Key, int], records: Iterable[ObjectRecord]) -> list[Key]:
        """Return the objects to look at, upstream ones first.

        ``changed`` has the version of the newest change of each object, ``records`` those of them
        that exist. What an owner is like is compared with the last call. An owner that another
        object's change concerns comes last, when nothing else is asked for: most changes run on.
        """
        standing = {record.key: record for record in records}
        asked: dict[Key, int] = {}
        for key, version in changed.items():
            if self._answered.get(key) != version:
                _raise_to(asked, key, version)
            for other in self._concerned(key, standing.get(key)):
                waits = other.kind in OWNER_KINDS
                _raise_to(self._owners if waits else asked, other, version)
            if key not in standing:
                self._forget(key)
        found = self._late(asked)
        self._rounds += 1
        if not found or self._rounds > OWNERS_WAIT_ROUNDS_MAX:
            found |= self._late(self._owners)
            self._owners.clear()
            self._rounds = 0
        return sorted(found, key=in_order_of_work)

    def _concerned(self, key: Key, record: ObjectRecord | None) -> Iterator[Key]:
        """Yield the others that a change may concern: owner, what names it, what it owns."""
        if record is not None and record.owner is not None:
            yield record.owner
        waits = _waits_as(record)
        is_news = waits is None or waits != self._waiting.get(key)
        self._waiting[key] = waits
        yield from (
            one for one in self.dependants.naming(key) if is_news or one.kind in OWNER_KINDS
        )
        if key.kind not in OWNER_KINDS:
            return
        edition = edition_of(record)
        if self._editions.get(key) != edition:  # its status is nothing to what it owns
            yield from self.dependants.owned_by(key)
        self._editions[key] = edition

    def _late(self, asked: Mapping[Key, int]) -> set[Key]:
        return {key for key, version in asked.items() if self._as_of.get(key, 0) < version}

    def _forget(self, key: Key) -> None:
        for kept in (self._as_of, self._answered, self._editions, self._waiting):
            kept.pop(key, None)


def _waits_as(record: ObjectRecord | None) -> Waiting | None:
    """Return all that those that name an object see of it while it is under way; None otherwise.

    Since when it is not Ready is in it: in between it may have been, and seen so.
    """
    if record is None or record.ready or record.stalled or record.status.is_of_older_rules:
        return None
    ready = record.status.condition("Ready")
    if ready is None:
        return None
    return record.uid, record.wanted_digest, ready.last_transition_time


def in_order_of_work(key: Key) -> tuple[int, Key]:
    """Return what sorts upstream objects first and owners last."""
    return _PLACE.get(key.kind, len(_PLACE) + (key.kind in OWNER_KINDS)), key


def _raise_to(versions: dict[Key, int], key: Key, version: int) -> None:
    versions[key] = max(version, versions.get(key, 0))
