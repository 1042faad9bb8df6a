"""An overlay on the store: objects changed in memory, everything else read from the database."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from loopscope.controller.reconcile.resolution import is_local, resolve
from loopscope.reconcilers.plan import ChildManifest
from loopscope.reconcilers.references import InputReference
from loopscope.specs.canonical import canonical_json
from loopscope.specs.json_values import JsonObject
from loopscope.specs.keys import Key
from loopscope.specs.status import Status
from loopscope.state.db import inputs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.records import InputRecord, ObjectRecord, edition_of


@dataclass
class Overlay:
    """Objects as they would be; nothing is written.

    Local models and dictionaries that the controller did not look at yet are looked at here;
    those on a hub stay unknown.
    """

    connection: Connection
    now: float
    seen: dict[Key, str] = field(default_factory=dict)
    """The edition of every stored object that was looked at; "" where there was none."""
    _changed: dict[Key, ObjectRecord | None] = field(default_factory=dict)
    _inputs: dict[str, InputRecord | None] = field(default_factory=dict)

    def get(self, key: Key) -> ObjectRecord | None:
        """Return an object as it would be, or None."""
        if key in self._changed:
            return self._changed[key]
        return self.stored(key)

    def stored(self, key: Key) -> ObjectRecord | None:
        """Return an object as it is, or None."""
        record = objects.get(self.connection, key)
        self.seen[key] = edition_of(record)
        return record

    def owned_by(self, uid: str) -> list[ObjectRecord]:
        """Return the objects that would name ``uid`` as their owner."""
        found = {record.key: record for record in objects.owned_by(self.connection, uid)}
        self.seen.update({key: edition_of(record) for key, record in found.items()})
        for key, record in self._changed.items():
            if record is None:
                found.pop(key, None)
            elif record.owner_uid == uid:
                found[key] = record
        return [found[key] for key in sorted(found)]

    def input(self, reference: InputReference) -> InputRecord | None:
        """Return what a reference resolves to; None for a hub that was not asked yet."""
        if reference.digest not in self._inputs:
            known = inputs.get(self.connection, reference.digest)
            if known is None and is_local(reference):
                known = self._looked_at(reference)
            self._inputs[reference.digest] = known
        return self._inputs[reference.digest]

    def put(self, record: ObjectRecord) -> None:
        """Let an object be this."""
        self._changed[record.key] = record

    def remove(self, key: Key) -> None:
        """Let an object be gone, and what it owns."""
        record = self.get(key)
        if record is None:
            return
        for child in self.owned_by(record.uid):
            self.remove(child.key)
        self._changed[key] = None

    def apply(self, key: Key, spec: JsonObject, owner: ObjectRecord | None = None) -> ObjectRecord:
        """Let an object have this spec; a new one has no status yet."""
        old = self.get(key)
        if old is None:
            record = ObjectRecord(
                key,
                f"planned-{key}",
                1,
                0,
                spec,
                Status(),
                self.now,
                owner=owner.key if owner else None,
                owner_uid=owner.uid if owner else None,
            )
        elif canonical_json(old.spec) == canonical_json(spec):
            record = old
        else:
            record = replace(old, spec=spec, generation=old.generation + 1)
        self.put(record)
        return record

    def apply_child(self, owner: ObjectRecord, child: ChildManifest) -> None:
        """Let an owned object have the spec that its owner wants."""
        self.apply(child.key, child.spec, owner)

    def _looked_at(self, reference: InputReference) -> InputRecord:
        found = resolve(reference)
        return InputRecord(
            reference.digest,
            reference.kind,
            reference.reference,
            found.facts,
            found.reason,
            found.message,
            found.terminal,
            self.now,
        )
