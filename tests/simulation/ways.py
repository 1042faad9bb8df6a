"""I14: a job never runs with a payload older than its object's present way to the same inputs.

Worked out from the specs, the observed inputs and the statuses of now; nothing of ``reconcilers``.
"""

from __future__ import annotations

from typing import Any

from loopscope.specs.actions import Stage
from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.state.db import inputs, objects, shares
from loopscope.state.db.connection import Connection
from loopscope.state.invariants import Violation
from loopscope.state.records import JobRecord, ObjectRecord


def started_on_the_way_of_now(connection: Connection, job: JobRecord) -> list[Violation]:
    """Ask about a job in the transaction that claims it, of everybody who wants it.

    A share starts on the way of the job that it helps.
    """
    ways = []
    share = shares.get(connection, job.id)
    for key in objects.wanting(connection, job.digest if share is None else share.digest):
        record = objects.get(connection, key)
        if record is not None:
            ways.append(_way(connection, record, job.stage))
    if any(way is not None and _is_part_of(way, job.payload) for way in ways):
        return []
    return [Violation("I14", f"{job.stage} job {job.id}", f"starts on {job.payload}, not {ways}")]


def _way(
    connection: Connection, record: ObjectRecord, stage: Stage | None = None
) -> dict[str, Any] | None:
    """Return what the payload of an object's job must hold, None when no way is open.

    A geometry is made for a mapping, of the dictionaries of its sides alone.
    """
    spec = record.spec
    match record.key.kind:
        case "Capture":
            return _all({"model": _found(connection, "model", spec["model"])})
        case "Decomposition":
            dictionary = _found(connection, "dictionary", spec["dictionary"])
            capture = _artifact(_named(connection, record, "captureRef"))
            return _all({"capture": capture, "dictionary": dictionary})
        case "Mapping":
            sides = _sides(connection, record)
            if sides is None or stage != "geometry":
                return sides
            return {name: sides[name]["dictionary"] for name in ("coarse", "fine")}
        case _:
            capture = _named(connection, record, "captureRef")
            mapping = _named(connection, record, "mappingRef")
            if capture is None or mapping is None:
                return None
            sides = _sides(connection, mapping)
            way = {
                "model": _found(connection, "model", capture.spec["model"]),
                "capture": _artifact(capture),
                "mapping": _artifact(mapping),
            }
            return _all({**sides, **way}) if sides is not None else None


def _sides(connection: Connection, mapping: ObjectRecord) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for name in ("coarse", "fine"):
        record = _named(connection, mapping, f"{name}Ref")
        own = _way(connection, record) if record is not None else None
        artifact = _artifact(record)
        if own is None or artifact is None:
            return None
        found[name] = {**artifact, "dictionary": own["dictionary"]}
        if name == "coarse":
            found["capture"] = own["capture"]
    return found


def _named(connection: Connection, record: ObjectRecord, field: str) -> ObjectRecord | None:
    kind = {"captureRef": "Capture", "mappingRef": "Mapping"}.get(field, "Decomposition")
    return objects.get(connection, Key(kind, record.key.namespace, record.spec[field]["name"]))


def _artifact(record: ObjectRecord | None) -> dict[str, Any] | None:
    if record is None or record.status.artifact is None:
        return None
    return {"digest": record.status.artifact.digest}


def _found(connection: Connection, kind: str, reference: dict[str, Any]) -> dict[str, Any] | None:
    known = inputs.get(connection, digest({"kind": kind, "reference": reference}))
    return known.facts["ref"] if known is not None and known.facts is not None else None


def _all(way: dict[str, Any]) -> dict[str, Any] | None:
    return None if None in way.values() else way


def _is_part_of(way: Any, payload: Any) -> bool:
    if isinstance(way, dict):
        return isinstance(payload, dict) and all(
            name in payload and _is_part_of(value, payload[name]) for name, value in way.items()
        )
    return bool(way == payload)
