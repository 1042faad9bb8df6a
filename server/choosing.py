"""Choosing of objects: namespace, name, labels and fields, as a request names them."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from loopscope.server.answers import Refused
from loopscope.server.resources import Resource
from loopscope.specs.keys import Key
from loopscope.state.records import ObjectRecord, ObjectText
from loopscope.views.documents.objects import object_document
from loopscope.views.selectors import (
    FieldTerm,
    Selector,
    names_instead,
    parse_field_selector,
    parse_selector,
)

_NAME, _NAMESPACE = ("metadata", "name"), ("metadata", "namespace")
DIGITS_MAX = 30
"""More than any count or version has."""
_FIRST_STEPS = ("metadata", "spec", "status")


@dataclass(frozen=True)
class Choice:
    """Which objects of a kind a list or a watch asks for."""

    resource: Resource
    namespace: str | None
    names: tuple[FieldTerm, ...]
    """Terms about name and namespace, which an object keeps."""
    fields: tuple[FieldTerm, ...]
    labels: Selector
    by_labels: bool

    @property
    def changes_with_time(self) -> bool:
        """Whether an object may come to fit, or fit no more, while it exists."""
        return self.by_labels or bool(self.fields)

    @property
    def only_key(self) -> Key | None:
        """The one object that can fit, where its name and namespace are given."""
        name = next((t.value for t in self.names if t.wanted and t.path == _NAME), None)
        if name is None or self.namespace is None:
            return None
        return Key(self.resource.kind, self.namespace, name)

    @property
    def scope(self) -> Hashable:
        """What decides which names could fit: equal where the same could."""
        return type(self), self.resource, self.namespace, self.names

    def may_hold(self, key: Key) -> bool:
        """Whether an object of this name could fit."""
        if key.kind != self.resource.kind or self.namespace not in (None, key.namespace):
            return False
        if not self.names:
            return True
        document = {"metadata": {"name": key.name, "namespace": key.namespace}}
        return all(term.fits(document) for term in self.names)

    def holds(self, record: ObjectRecord) -> bool:
        """Whether an object fits as it is."""
        if not self.may_hold(record.key) or not self.labels(record.labels):
            return False
        if not self.fields:
            return True
        document = object_document(record)
        return all(term.fits(document) for term in self.fields)

    def holds_text(self, text: ObjectText) -> bool:
        """The same of an object of this kind and namespace that is text, of no asked field."""
        assert not self.fields
        if self.names and not self.may_hold(text.key):
            return False
        return not self.by_labels or self.labels(json.loads(text.labels))


def whole_number(query: Mapping[str, str], name: str) -> int | None:
    """Return a parameter of a query; None where it is not given or empty. Raises Refused."""
    text = query.get(name, "")
    if not text:
        return None
    if not re.fullmatch(f"[0-9]{{1,{DIGITS_MAX}}}", text):
        shown = text if len(text) <= 2 * DIGITS_MAX else f"{text[:DIGITS_MAX]}…"
        expected = f"a whole number of at most {DIGITS_MAX} digits"
        raise Refused(400, f"{name}={shown}: expected {expected}")
    return int(text)


def choice_of(resource: Resource, namespace: str | None, query: Mapping[str, str]) -> Choice:
    """Return which objects a query chooses; raises Refused."""
    try:
        labels = parse_selector(query.get("labelSelector", ""))
        terms = parse_field_selector(query.get("fieldSelector", ""))
    except ValueError as error:
        raise Refused(400, f"unable to parse the selector: {error}") from None
    for term in terms:
        if term.path[0] not in _FIRST_STEPS or len(term.path) < 2:
            raise Refused(
                400,
                f"field label not supported: {'.'.join(term.path)}; expected a field below "
                "metadata, spec or status, for example metadata.name",
            )
        if names := names_instead(term.path):
            raise Refused(
                400,
                f"field label not supported: {'.'.join(term.path)}; below {term.path[0]} stand "
                f"{', '.join(names)}",
            )
    steady = tuple(term for term in terms if term.path in (_NAME, _NAMESPACE))
    others = tuple(term for term in terms if term.path not in (_NAME, _NAMESPACE))
    by_labels = bool(query.get("labelSelector", "").strip())
    return Choice(resource, namespace, steady, others, labels, by_labels)
