"""Earlier specs of objects, kept in the transaction that replaces them.

Only of objects without an owner: what an owner makes follows from its own spec.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select

from loopscope.specs.canonical import canonical_json
from loopscope.state.db import tables
from loopscope.state.db.dialect.statements import upsert
from loopscope.state.records import ObjectRecord, RevisionRecord

REVISIONS_KEPT = 10
"""Earlier specs of one object, as Kubernetes keeps of a Deployment; the oldest go first."""
BYTES_KEPT = 64 * 2**20
"""Of all earlier specs together; those that were replaced first go first."""

_r = tables.revisions.c


def keep(connection: Connection, replaced: ObjectRecord, *, now: float) -> None:
    """Keep the spec of an object that is about to be replaced, within the limits."""
    if replaced.owner_uid is not None:
        return
    row = {
        "uid": replaced.uid,
        "generation": replaced.generation,
        "spec": replaced.spec,
        "bytes": len(canonical_json(replaced.spec).encode()),
        "replaced_at": now,
    }
    upsert(connection, tables.revisions, row)
    oldest_kept = replaced.generation - REVISIONS_KEPT + 1
    connection.execute(
        delete(tables.revisions).where(_r.uid == replaced.uid, _r.generation < oldest_kept)
    )
    _trim(connection)


def listed(connection: Connection, uid: str) -> list[RevisionRecord]:
    """Return the earlier specs of the object with this uid, oldest first."""
    query = select(tables.revisions).where(_r.uid == uid).order_by(_r.generation)
    return [
        RevisionRecord(row.generation, row.spec, row.replaced_at)
        for row in connection.execute(query)
    ]


def forget(connection: Connection, uid: str) -> None:
    """Forget the earlier specs of an object that is deleted."""
    connection.execute(delete(tables.revisions).where(_r.uid == uid))


def _trim(connection: Connection) -> None:
    """Forget what was replaced first until the rest is small enough; the newest always stays."""
    too_much = connection.execute(select(func.coalesce(func.sum(_r.bytes), 0))).scalar_one()
    too_much -= BYTES_KEPT
    if too_much <= 0:
        return
    oldest_first = select(_r.uid, _r.generation, _r.bytes).order_by(
        _r.replaced_at, _r.uid, _r.generation
    )
    for row in connection.execute(oldest_first).all()[:-1]:
        if too_much <= 0:
            return
        doomed = (_r.uid == row.uid, _r.generation == row.generation)
        connection.execute(delete(tables.revisions).where(*doomed))
        too_much -= row.bytes
