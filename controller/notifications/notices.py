"""Notices: which conditions of which objects changed, as what is sent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from loopscope.controller.settings import NotificationSettings
from loopscope.specs.keys import API_VERSION, Key
from loopscope.specs.status import Condition
from loopscope.state.records import ObjectRecord

Place = tuple[str, str]
"""Uid of an object, and type of a condition."""


@dataclass(frozen=True)
class Notice:
    """One condition that has another status than before."""

    object: Key
    uid: str
    generation: int
    version: int
    """The resourceVersion with which it was seen."""
    condition: Condition
    before: str
    """The status that was seen before; Unknown where there was none."""

    @property
    def place(self) -> Place:
        """What a newer notice of the same condition replaces."""
        return self.uid, self.condition.type

    @property
    def id(self) -> str:
        """The same for the same change, however often it is sent."""
        return f"{self.uid}.{self.condition.type}.{self.version}"

    def body(self) -> bytes:
        """Return what is sent, as JSON with the field names of the API."""
        said = {
            "type": "ConditionChanged",
            "id": self.id,
            "object": {
                "apiVersion": API_VERSION,
                **self.object._asdict(),
                "uid": self.uid,
                "generation": self.generation,
            },
            "condition": self.condition.to_json(),
            "previousStatus": self.before,
        }
        return json.dumps(said, sort_keys=True, ensure_ascii=False).encode()


@dataclass
class Noticing:
    """Compares objects with what was seen of them before; keeps a status a condition, no more."""

    settings: NotificationSettings
    _seen: dict[Place, str] = field(default_factory=dict)

    def prime(self, records: Iterable[ObjectRecord]) -> None:
        """Take note of objects as they are, and tell of none."""
        for record in records:
            self._seen.update(_statuses(record))

    def changed(self, records: Iterable[ObjectRecord]) -> Iterator[Notice]:
        """Yield a notice for each condition whose status is another one than before.

        A condition that was not there counts once it is True.
        """
        for record in records:
            if not self._concerns(record):
                continue
            for condition in (*record.status.conditions, *self._taken_away(record)):
                place = (record.uid, condition.type)
                before = self._seen.get(place, "False" if condition.status != "True" else "Unknown")
                self._seen[place] = condition.status
                if condition.type in self.settings.conditions and before != condition.status:
                    yield Notice(
                        record.key, record.uid, record.generation, record.resource_version,
                        condition, before,
                    )  # fmt: skip
            if record.deletion_timestamp is not None:
                self._forget(record)

    def _concerns(self, record: ObjectRecord) -> bool:
        kinds = self.settings.kinds
        return record.key.kind in kinds if kinds else record.owner_uid is None

    def _taken_away(self, record: ObjectRecord) -> Iterator[Condition]:
        """Yield the conditions that were True and are not there any more, as False."""
        there = {one.type: one for one in record.status.conditions}
        at = max((one.last_transition_time for one in there.values()), default=0.0)
        for kind in self.settings.conditions:
            if kind not in there and self._seen.get((record.uid, kind)) == "True":
                yield Condition(kind, "False", "TakenAway", "", record.generation, at)

    def _forget(self, record: ObjectRecord) -> None:
        for kind in self.settings.conditions:
            self._seen.pop((record.uid, kind), None)


def _statuses(record: ObjectRecord) -> dict[Place, str]:
    return {(record.uid, one.type): one.status for one in record.status.conditions}
