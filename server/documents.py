"""Objects as the API shows them: whole, as metadata alone, and as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from loopscope.controller.apply.appliers import field_manager
from loopscope.reports.tables.listing import column_names, listing
from loopscope.server.answers import Refused
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import API_VERSION
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.state.db import applied
from loopscope.state.db.connection import Connection
from loopscope.state.records import AppliedRecord, ObjectRecord
from loopscope.views.documents.objects import metadata_document, object_document
from loopscope.views.present import present
from loopscope.views.stages import by_owner, descendants

META = "meta.k8s.io/v1"
Included = Literal["Metadata", "Object", "None"]


@dataclass(frozen=True)
class Shape:
    """The form that a client asked for."""

    as_table: bool = False
    include: Included = "Metadata"
    """What each row of a table holds beside its cells."""


@dataclass(frozen=True)
class Seen:
    """An object at one moment, with what its documents need beside it."""

    record: ObjectRecord
    applied: AppliedRecord | None = None
    owned: Mapping[str, Sequence[ObjectRecord]] | None = None
    """What it owns, and what that owns, by the uid of the owner."""


def shape_of(accept: str, include: str | None) -> Shape:
    """Return the form for an ``Accept`` header and ``includeObject``; raises Refused."""
    if include not in (None, "", "Metadata", "Object", "None"):
        raise Refused(400, f"includeObject={include}: expected Metadata, Object or None")
    for one in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in one.split(";"))
        if kind not in ("application/json", "application/*", "*/*", ""):
            continue
        words = dict(p.partition("=")[::2] for p in parameters)
        if words.get("as") == "table" and words.get("v") == "v1":
            return Shape(True, cast(Included, include or "Metadata"))
        if "as" not in words:
            return Shape()
    raise Refused(406, f"Accept: {accept}: only JSON is served, objects and tables (meta v1)")


def seen(
    connection: Connection, records: Sequence[ObjectRecord], *, with_owned: bool
) -> list[Seen]:
    """Return objects as they are now, with what documents of them need."""
    found = present(connection, records)
    asked = applied.of_uids(connection, [record.uid for record in found])
    owned: Mapping[str, Sequence[ObjectRecord]] = {}
    if with_owned:
        owners = [record for record in found if record.key.kind in OWNER_KINDS]
        owned = by_owner(present(connection, descendants(connection, owners)))
    return [Seen(record, asked.get(record.uid), owned) for record in found]


def whole(one: Seen) -> JsonObject:
    """Return an object with metadata, spec and status."""
    document = object_document(one.record)
    return {**document, "metadata": _metadata(one)}  # type: ignore[dict-item] # JSON by its types


def table(
    kind: str, rows: Sequence[Seen], shape: Shape, *, now: float, metadata: JsonObject
) -> JsonObject:
    """Return the table that ``loopscope get -o wide`` prints; its wide columns have priority 1."""
    records = [one.record for one in rows]
    owned = {uid: found for one in rows for uid, found in (one.owned or {}).items()}
    narrow = set(column_names(kind, records))
    made = listing(kind, records, now=now, children=owned, wide=True)
    columns: list[Json] = [
        {
            "name": name.capitalize(),
            "type": "string",
            "format": "name" if name == "NAME" else "",
            "description": f"{name} of `loopscope get`.",
            "priority": 0 if name in narrow else 1,
        }
        for name in made.columns
    ]
    lines: list[Json] = []
    for one, cells in zip(rows, made.rows, strict=True):
        line: JsonObject = {"cells": list(cells)}
        if shape.include != "None":
            line["object"] = whole(one) if shape.include == "Object" else _only_metadata(one)
        lines.append(line)
    return {
        "kind": "Table",
        "apiVersion": META,
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": lines,
    }


def listed(
    kind: str, found: Sequence[Seen], shape: Shape, *, now: float, metadata: JsonObject
) -> JsonObject:
    """Return several objects in the form that was asked for."""
    if shape.as_table:
        return table(kind, found, shape, now=now, metadata=metadata)
    return {
        "kind": f"{kind}List",
        "apiVersion": API_VERSION,
        "metadata": metadata,
        "items": [whole(one) for one in found],
    }


def shaped(one: Seen, shape: Shape, *, now: float) -> JsonObject:
    """Return one object in the form that was asked for."""
    if not shape.as_table:
        return whole(one)
    version: JsonObject = {"resourceVersion": str(one.record.resource_version)}
    return table(one.record.key.kind, [one], shape, now=now, metadata=version)


def _only_metadata(one: Seen) -> JsonObject:
    metadata = _metadata(one)
    return {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata}


def _metadata(one: Seen) -> JsonObject:
    made = cast(JsonObject, dict(metadata_document(one.record)))
    made["resourceVersion"] = str(one.record.resource_version)
    if one.applied is not None:
        made["managedFields"] = [managed_fields(one.applied)]
    return made


def managed_fields(last: AppliedRecord) -> JsonObject:
    """Return who applies an object and which fields the last apply gave, as FieldsV1."""
    fields: JsonObject = {}
    for name in last.fields:
        _put(fields, ["spec", *name.split(".")])
    for name in last.labels:
        _put(fields, ["metadata", "labels", name])
    for name in last.annotations:
        _put(fields, ["metadata", "annotations", name])
    return {
        "manager": field_manager(last.manager),
        "operation": "Apply",
        "apiVersion": API_VERSION,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }


def _put(fields: JsonObject, path: Sequence[str]) -> None:
    place = fields
    for step in path:
        inside = place.setdefault(f"f:{step}", {})
        assert isinstance(inside, dict)  # every place is a mapping of such places
        place = inside
