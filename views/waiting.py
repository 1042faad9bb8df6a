"""The chain of what an object waits for: itself, what that waits for, and so on, in words.

A status names only what its object waits for itself. So a step of an early stage is written once,
and not into the status of all that wait behind it; who reads one reads the rest of the chain, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from loopscope.reconcilers.references import object_references
from loopscope.reconcilers.stage import waits_for
from loopscope.specs.keys import Key
from loopscope.state.records import ObjectRecord

Get = Callable[[Key], ObjectRecord | None]


def with_reasons(records: Sequence[ObjectRecord], get: Get) -> list[ObjectRecord]:
    """Return the objects; what waits for another one says what that one is doing, too.

    ``get`` finds the others. Where an object has changed since its status was written, this stays.
    """
    chains = _Chains(get, {record.key: record for record in records})
    return [chains.told(record) for record in records]


@dataclass
class _Chains:
    get: Get
    known: dict[Key, ObjectRecord | None] = field(default_factory=dict)

    def told(self, record: ObjectRecord) -> ObjectRecord:
        said = record.status.condition("Ready")
        if said is None or said.reason != "InputsNotReady":
            return record
        upstream = self._first_not_ready(record)
        if upstream is None or said.message != waits_for(upstream.key):
            return record
        why = self.told(upstream).status.condition("Ready")
        if why is None or not why.message:
            return record
        words = f"{said.message}: {why.message}"
        conditions = tuple(
            replace(one, message=words) if one.message == said.message else one
            for one in record.status.conditions
        )
        return replace(record, status=replace(record.status, conditions=conditions))

    def _first_not_ready(self, record: ObjectRecord) -> ObjectRecord | None:
        others = (self._found(key) for key in object_references(record))
        return next((one for one in others if one is not None and not one.ready), None)

    def _found(self, key: Key) -> ObjectRecord | None:
        if key not in self.known:
            self.known[key] = self.get(key)
        return self.known[key]
