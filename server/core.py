"""Core Kubernetes' resources that clients ask for: namespaces, and events about objects."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from loopscope.reports.tables.events import EVENT_COLUMNS, event_row
from loopscope.server.answers import Refused
from loopscope.server.core_watching import Present
from loopscope.server.documents import META, Shape
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import API_VERSION, Key
from loopscope.state.db import events, objects, pages
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import EventRecord
from loopscope.views.numbers import iso
from loopscope.views.selectors import parse_field_selector

DEFAULT = "default"
MESSAGE_CHARACTERS_MAX = 1024
CoreRow = tuple[Sequence[str], JsonObject]
"""The cells of an object in a table, and the object."""
_NAMESPACE_COLUMNS = ("NAME", "STATUS")


def namespaces(state: StateFolder, *, now: float) -> list[JsonObject]:
    """Return the namespaces that hold objects, and ``default``, which is always there."""
    with state.database.read() as connection:
        found = dict(pages.namespaces(connection))
    found.setdefault(DEFAULT, now)
    return [_namespace(name, since) for name, since in sorted(found.items())]


def namespace_list(state: StateFolder, shape: Shape, *, now: float) -> JsonObject:
    """Return all namespaces in the form that was asked for."""
    rows = [_namespace_row(one) for one in namespaces(state, now=now)]
    return _listed("Namespace", _NAMESPACE_COLUMNS, rows, shape)


def namespaces_there(state: StateFolder, shape: Shape, *, now: float) -> dict[str, Present]:
    """Return what a watch of namespaces sees now."""
    rows = [_namespace_row(one) for one in namespaces(state, now=now)]
    return _present("Namespace", _NAMESPACE_COLUMNS, rows, shape)


def namespace(state: StateFolder, name: str, *, now: float) -> JsonObject:
    """Return one namespace; raises Refused."""
    for one in namespaces(state, now=now):
        if _name(one) == name:
            return one
    raise Refused(404, f'namespaces "{name}" not found')


def event_list(
    state: StateFolder, place: str | None, query: Mapping[str, str], shape: Shape, *, now: float
) -> JsonObject:
    """Return the events of a namespace, or of all, that a field selector chooses."""
    rows = _event_rows(state, place, query, now=now)
    return _listed("Event", EVENT_COLUMNS, rows, shape)


def events_there(
    state: StateFolder, place: str | None, query: Mapping[str, str], shape: Shape, *, now: float
) -> dict[str, Present]:
    """Return what a watch of events sees now."""
    rows = _event_rows(state, place, query, now=now)
    return _present("Event", EVENT_COLUMNS, rows, shape)


def record_event(state: StateFolder, place: str, body: JsonObject, *, now: float) -> JsonObject:
    """Store an event that another program says happened to an object; raises Refused."""
    involved = body.get("involvedObject")
    if not isinstance(involved, dict):
        raise Refused(422, "involvedObject: expected the object that the event is about")
    key = Key(str(involved.get("kind")), place, str(involved.get("name")))
    reason, message = str(body.get("reason") or ""), str(body.get("message") or "")
    word: Literal["Normal", "Warning"] = "Warning" if body.get("type") == "Warning" else "Normal"
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,127}", reason) is None:
        raise Refused(422, "reason: expected a word of at most 128 letters and digits")
    if len(message) > MESSAGE_CHARACTERS_MAX:
        raise Refused(422, f"message: expected at most {MESSAGE_CHARACTERS_MAX:,} characters")
    with state.database.write() as connection:
        if objects.get(connection, key) is None:
            raise Refused(404, f"{key} does not exist: events are about objects that do")
        events.record(connection, key, word, reason, message, now=now)
        stored = next(
            one
            for one in events.listed(connection, key)
            if (one.reason, one.message) == (reason, message)
        )
        return _event(connection, stored, {})


def event(state: StateFolder, place: str, name: str, *, now: float) -> JsonObject:
    """Return one event; raises Refused."""
    query = {"fieldSelector": f"metadata.name={name}"}
    items = event_list(state, place, query, Shape(), now=now)["items"]
    if not isinstance(items, list) or not items or not isinstance(items[0], dict):
        raise Refused(404, f'events "{name}" not found')
    return {"kind": "Event", "apiVersion": "v1", **items[0]}


def _event_rows(
    state: StateFolder, place: str | None, query: Mapping[str, str], *, now: float
) -> list[CoreRow]:
    try:
        terms = parse_field_selector(query.get("fieldSelector", ""))
    except ValueError as error:
        raise Refused(400, str(error)) from None
    with state.database.read() as connection:
        found = [e for e in events.listed(connection) if place in (None, e.key.namespace)]
        uids: dict[Key, str] = {}
        rows: list[CoreRow] = []
        for one in found:
            document = _event(connection, one, uids)
            if all(term.fits(document) for term in terms):
                rows.append((event_row(one, now=now), document))
    return rows


def _namespace_row(document: JsonObject) -> CoreRow:
    return [str(_name(document)), "Active"], document


def _present(
    kind: str, columns: Sequence[str], rows: Sequence[CoreRow], shape: Shape
) -> dict[str, Present]:
    found: dict[str, Present] = {}
    for row in rows:
        document = row[1]
        shown = _listed(kind, columns, [row], shape) if shape.as_table else document
        found[str(_named(document))] = Present(_version(document), shown)
    return found


def _listed(
    kind: str,
    columns: Sequence[str],
    rows: Sequence[CoreRow],
    shape: Shape,
) -> JsonObject:
    newest = max((_version(document) for _, document in rows), default=1)
    metadata: JsonObject = {"resourceVersion": str(newest)}
    if not shape.as_table:
        return {
            "kind": f"{kind}List",
            "apiVersion": "v1",
            "metadata": metadata,
            "items": [document for _, document in rows],
        }
    definitions: Json = [
        {"name": name, "type": "string", "format": "", "description": "", "priority": 0}
        for name in (column.capitalize() for column in columns)
    ]
    lines: Json = [{"cells": [*cells], "object": document} for cells, document in rows]
    return {
        "kind": "Table",
        "apiVersion": META,
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": lines,
    }


def _namespace(name: str, since: float) -> JsonObject:
    metadata: JsonObject = {
        "name": name,
        "resourceVersion": _version_at(since),
        "creationTimestamp": iso(since),
    }
    return {
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": metadata,
        "status": {"phase": "Active"},
    }


def _name(document: JsonObject) -> Json:
    return _metadata(document)["name"]


def _named(document: JsonObject) -> tuple[Json, Json]:
    metadata = _metadata(document)
    return metadata.get("namespace"), metadata["name"]


def _version(document: JsonObject) -> int:
    return int(str(_metadata(document)["resourceVersion"]))


def _version_at(seconds: float) -> str:
    """Return a version for what has no change log: the microsecond in which it last changed."""
    return str(max(1, int(seconds * 1e6)))


def _metadata(document: JsonObject) -> JsonObject:
    metadata = document["metadata"]
    assert isinstance(metadata, dict)  # made above
    return metadata


def _event(connection: Connection, one: EventRecord, uids: dict[Key, str]) -> JsonObject:
    """Return an event of core v1; its name is a hash of what makes it another event."""
    if one.key not in uids:
        record = objects.get(connection, one.key)
        uids[one.key] = record.uid if record is not None else ""
    what = hashlib.sha256("\0".join((*one.key, one.reason, one.message)).encode()).hexdigest()
    involved: JsonObject = {
        "apiVersion": API_VERSION,
        "kind": one.key.kind,
        "namespace": one.key.namespace,
        "name": one.key.name,
        "uid": uids[one.key],
    }
    return {
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {
            "name": f"{one.key.name}.{what[:16]}",
            "namespace": one.key.namespace,
            "resourceVersion": _version_at(one.last_seen_at),
            "creationTimestamp": iso(one.first_seen_at),
        },
        "involvedObject": involved,
        "type": one.type,
        "reason": one.reason,
        "message": one.message,
        "count": one.count,
        "firstTimestamp": iso(one.first_seen_at),
        "lastTimestamp": iso(one.last_seen_at),
        "source": {"component": "loopscope"},
    }
