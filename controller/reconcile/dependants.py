"""An index of dependants, in memory: which objects to look at when one changes.

Derived from the objects as they were read, in the order of the change log; it may vanish.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from loopscope.reconcilers.references import InputReference, input_references, object_references
from loopscope.specs.keys import Key
from loopscope.state.records import ObjectRecord

Name = TypeVar("Name")


@dataclass
class Dependants:
    """By key the objects that name it, and those that it owns; by input those that use it."""

    _by_key: dict[Key, set[Key]] = field(default_factory=dict)
    _by_owner: dict[Key, set[Key]] = field(default_factory=dict)
    _by_input: dict[str, set[Key]] = field(default_factory=dict)
    _inputs: dict[str, InputReference] = field(default_factory=dict)
    _known: dict[Key, tuple[tuple[Key, ...], Key | None, tuple[str, ...]]] = field(
        default_factory=dict
    )
    _seen: dict[Key, tuple[str, int]] = field(default_factory=dict)
    """As which incarnation and in which generation each object was learned."""

    def replace(self, records: Iterable[ObjectRecord]) -> None:
        """Forget everything and learn these."""
        for kept in (self._by_key, self._by_owner, self._by_input, self._inputs, self._known):
            kept.clear()
        self._seen.clear()
        for record in records:
            self.learn(record)

    def learn(self, record: ObjectRecord) -> None:
        """Take in an object as it is now."""
        if self._seen.get(record.key) == (record.uid, record.generation):
            return
        self.forget(record.key)
        self._seen[record.key] = (record.uid, record.generation)
        keys, references = tuple(object_references(record)), input_references(record)
        for key in keys:
            self._by_key.setdefault(key, set()).add(record.key)
        if record.owner is not None:
            self._by_owner.setdefault(record.owner, set()).add(record.key)
        for reference in references:
            self._inputs[reference.digest] = reference
            self._by_input.setdefault(reference.digest, set()).add(record.key)
        digests = tuple(reference.digest for reference in references)
        self._known[record.key] = (keys, record.owner, digests)

    def forget(self, key: Key) -> None:
        """Take an object out; what names it is still known."""
        self._seen.pop(key, None)
        keys, owner, inputs = self._known.pop(key, ((), None, ()))
        for other in keys:
            _discard(self._by_key, other, key)
        if owner is not None:
            _discard(self._by_owner, owner, key)
        for digest in inputs:
            _discard(self._by_input, digest, key)
            if digest not in self._by_input:
                del self._inputs[digest]

    def naming(self, key: Key) -> set[Key]:
        """Return the objects that name this one; an owner names what it owns."""
        return self._by_key.get(key, set())

    def owned_by(self, key: Key) -> set[Key]:
        """Return the objects that this one owns."""
        return self._by_owner.get(key, set())

    def of_input(self, reference: InputReference) -> list[Key]:
        """Return the objects that use an input, in order."""
        return sorted(self._by_input.get(reference.digest, ()))

    def inputs(self) -> Iterator[InputReference]:
        """Yield every input that some object uses, once."""
        yield from self._inputs.values()


def _discard(index: dict[Name, set[Key]], name: Name, key: Key) -> None:
    found = index.get(name)
    if found is not None:
        found.discard(key)
        if not found:
            del index[name]
