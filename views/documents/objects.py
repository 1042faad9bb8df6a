"""Objects as documents: what ``get -o yaml`` prints."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

from loopscope.specs.keys import (
    API_VERSION,
    SOURCE_ANNOTATION,
    SOURCE_PROBLEM_ANNOTATION,
    Key,
)
from loopscope.specs.status import ConditionJson, StatusJson
from loopscope.state.records import ObjectRecord
from loopscope.views.numbers import iso

_MACHINE = (SOURCE_ANNOTATION, SOURCE_PROBLEM_ANNOTATION)
"""Annotations that describe this machine, not the object."""
StatusDocument = StatusJson[str | None]
"""A status with dates."""


class OwnerDocument(TypedDict):
    """The object that owns another one."""

    apiVersion: str
    kind: str
    name: str
    uid: str | None
    controller: bool


class Metadata(TypedDict):
    """The name, age and labels of an object; its owner and its deletion, if it has them."""

    name: str
    namespace: str
    uid: str
    labels: dict[str, str]
    annotations: dict[str, str]
    generation: int
    resourceVersion: int
    creationTimestamp: str | None
    deletionTimestamp: NotRequired[str | None]
    finalizers: NotRequired[list[str]]
    ownerReferences: NotRequired[list[OwnerDocument]]


class ObjectDocument(TypedDict):
    """An object with metadata, the spec of its kind and its status."""

    apiVersion: str
    kind: str
    metadata: Metadata
    spec: Mapping[str, Any]
    status: StatusDocument


class ListDocument(TypedDict):
    """Several objects."""

    apiVersion: str
    kind: Literal["List"]
    items: list[ObjectDocument]


class ApplicableMetadata(TypedDict):
    """Metadata that a user writes."""

    name: str
    namespace: str
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]


class ApplicableDocument(TypedDict):
    """An object as a user writes it."""

    apiVersion: str
    kind: str
    metadata: ApplicableMetadata
    spec: Mapping[str, Any]


def object_document(record: ObjectRecord) -> ObjectDocument:
    """Return an object as people know it: apiVersion, kind, metadata, spec, status."""
    return {
        "apiVersion": API_VERSION,
        "kind": record.key.kind,
        "metadata": metadata_document(record),
        "spec": record.spec,
        "status": _status(record),
    }


def list_document(records: Sequence[ObjectRecord]) -> ListDocument:
    """Return several objects as one document of kind ``List``."""
    return {
        "apiVersion": API_VERSION,
        "kind": "List",
        "items": [object_document(record) for record in records],
    }


def applicable_document(record: ObjectRecord) -> ApplicableDocument:
    """Return the object as it could be applied again: no status, prompt texts in place.

    ``file`` and the like are left out beside ``texts``: the texts are what was run. Where the
    YAML lay on a machine is left out, too.
    """
    metadata: ApplicableMetadata = {"name": record.key.name, "namespace": record.key.namespace}
    if labels := _own(record.labels):
        metadata["labels"] = labels
    if annotations := _own(record.annotations):
        metadata["annotations"] = annotations
    return {
        "apiVersion": API_VERSION,
        "kind": record.key.kind,
        "metadata": metadata,
        "spec": texts_in_place(record.spec),
    }


def _own(values: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in values.items() if name not in _MACHINE}


def metadata_document(record: ObjectRecord) -> Metadata:
    """Return what an object is called, how old it is and to whom it belongs."""
    metadata: Metadata = {
        "name": record.key.name,
        "namespace": record.key.namespace,
        "uid": record.uid,
        "labels": dict(record.labels),
        "annotations": dict(record.annotations),
        "generation": record.generation,
        "resourceVersion": record.resource_version,
        "creationTimestamp": iso(record.creation_timestamp),
    }
    if record.deletion_timestamp is not None:
        metadata["deletionTimestamp"] = iso(record.deletion_timestamp)
    if record.finalizers:
        metadata["finalizers"] = list(record.finalizers)
    if record.owner is not None:
        metadata["ownerReferences"] = [owner_document(record.owner, record.owner_uid)]
    return metadata


def owner_document(owner: Key, uid: str | None) -> OwnerDocument:
    """Return how an object names its owner."""
    return {
        "apiVersion": API_VERSION,
        "kind": owner.kind,
        "name": owner.name,
        "uid": uid,
        "controller": True,
    }


def _status(record: ObjectRecord) -> StatusDocument:
    status = record.status.to_json()
    conditions: list[ConditionJson[str | None]] = [
        {**one, "lastTransitionTime": iso(one["lastTransitionTime"])}
        for one in status["conditions"]
    ]
    return {**status, "conditions": conditions}


def texts_in_place(value: Any) -> Any:
    """Return a spec with its texts alone, without where and how they were read."""
    from loopscope.specs.texts import READING_FIELDS  # late: a table shows no texts

    return _without(READING_FIELDS, value)


def _without(reading: Collection[str], value: Any) -> Any:
    if isinstance(value, dict):
        dropped = {*reading} if "texts" in value else set()
        dropped |= {"template"} if "templateText" in value else set()
        return {name: _without(reading, v) for name, v in value.items() if name not in dropped}
    if isinstance(value, list):
        return [_without(reading, item) for item in value]
    return value
