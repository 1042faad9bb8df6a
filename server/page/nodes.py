"""Objects as nodes of a tree: the word, the reason, and the cells of ``loopscope get``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loopscope.reports.tables.listing import listing
from loopscope.server.page.site import key_json
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.state.db import pauses
from loopscope.state.db.connection import Connection
from loopscope.state.records import ObjectRecord
from loopscope.views.numbers import age
from loopscope.views.present import present
from loopscope.views.progress import Row
from loopscope.views.stages import by_owner, descendants, object_word

LEFT_OUT = ("NAME", "AGE", "REASON")
"""Columns that a node shows in a way of its own."""


def nodes(
    connection: Connection,
    records: Sequence[ObjectRecord],
    *,
    now: float,
    progress: Mapping[Key, Row] | None = None,
) -> list[JsonObject]:
    """Return objects as nodes, in their order, each as it is now.

    ``progress`` holds how far those are of which that was read.
    """
    shown = present(connection, records)
    owners = [one for one in shown if one.key.kind in OWNER_KINDS]
    owned = by_owner(present(connection, descendants(connection, owners)))
    paused = pauses.listed(connection)
    made: list[JsonObject] = []
    for record in shown:
        node = _node(record, owned, now=now)
        stage = None if record.key.kind in OWNER_KINDS else record.key.kind.lower()
        held = pauses.holding(paused, record.key, record.owner, stage)
        node["pausedBy"] = pauses.in_words(held) if held is not None else None
        node["paused"] = pauses.scope_of(record.key) in paused
        row = (progress or {}).get(record.key)
        if row is not None:
            left = row.left_seconds
            node |= {"detail": row.detail, "share": row.share}
            node["left"] = age(left) if left is not None and left >= 1 else ""
        made.append(node)
    return made


def _node(
    record: ObjectRecord, owned: Mapping[str, Sequence[ObjectRecord]], *, now: float
) -> JsonObject:
    kind = record.key.kind
    table = listing(kind, [record], now=now, children=owned)
    cells: list[Json] = [
        [name, value]
        for name, value in zip(table.columns, table.rows[0], strict=True)
        if name not in LEFT_OUT
    ]
    ready = record.status.condition("Ready")
    return {
        **key_json(record.key),
        "uid": record.uid,
        "owner": record.owner_uid,
        "word": object_word(record),
        "reason": ready.reason if ready is not None else "",
        "message": ready.message if ready is not None else "not looked at yet",
        "since": ready.last_transition_time if ready is not None else record.creation_timestamp,
        "created": record.creation_timestamp,
        "version": record.resource_version,
        "generation": record.generation,
        "current": record.status.observed_generation == record.generation,
        "sweep": "matrix" in record.spec,
        "owns": len(owned.get(record.uid, ())),
        "cells": cells,
    }
