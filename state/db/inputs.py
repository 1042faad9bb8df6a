"""Observed inputs: what model and dictionary references resolved to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, Row, bindparam, select

from loopscope.specs.payloads.observed import ObservedDictionary, ObservedModel
from loopscope.state.db import tables
from loopscope.state.db.dialect.statements import upsert
from loopscope.state.records import InputRecord

_BY_DIGEST = select(tables.inputs).where(tables.inputs.c.reference_digest == bindparam("digest"))


def get(connection: Connection, reference_digest: str) -> InputRecord | None:
    """Return what is known about a reference, or None when it was never observed."""
    row = connection.execute(_BY_DIGEST, {"digest": reference_digest}).first()
    return _record(row) if row else None


def record(
    connection: Connection,
    reference_digest: str,
    kind: Literal["model", "dictionary"],
    reference: Mapping[str, object],
    *,
    now: float,
    facts: ObservedModel | ObservedDictionary | None = None,
    reason: str | None = None,
    message: str | None = None,
    terminal: bool = False,
) -> bool:
    """Record an observation; return whether it differs from the last one."""
    old = get(connection, reference_digest)
    new = (facts, reason, message, terminal)
    if old is not None and (old.facts, old.reason, old.message, old.terminal) == new:
        return False
    seen = {
        "reference_digest": reference_digest,
        "kind": kind,
        "reference": reference,
        "facts": facts,
        "reason": reason,
        "message": message,
        "terminal": int(terminal),
        "observed_at": now,
    }
    upsert(connection, tables.inputs, seen)
    return True


def _record(row: Row[Any]) -> InputRecord:
    return InputRecord(
        row.reference_digest,
        row.kind,
        row.reference,
        row.facts,
        row.reason,
        row.message,
        bool(row.terminal),
        row.observed_at,
    )
