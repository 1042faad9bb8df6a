"""Marks on jobs that no worker could hold, with what is missing."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select, update

from loopscope.specs.keys import Key
from loopscope.state.db import tables
from loopscope.state.db.objects import wanting
from loopscope.state.records import UNPLACEABLE


def marked(connection: Connection) -> dict[int, str]:
    """Return what each marked job was told."""
    j = tables.jobs.c
    query = select(j.id, j.message).where(j.state == "pending", j.reason == UNPLACEABLE)
    return {row.id: row.message for row in connection.execute(query)}


def mark(connection: Connection, why: Mapping[int, str]) -> list[Key]:
    """Mark exactly these pending jobs as ``Unplaceable``; return the objects concerned.

    A job that is tried again for another reason keeps that one, and is not marked.
    """
    before = marked(connection)
    j = tables.jobs.c
    digests: set[str] = set()
    for job in before.keys() | why.keys():
        if before.get(job) == why.get(job):
            continue
        reason = UNPLACEABLE if job in why else None
        free = j.reason == UNPLACEABLE if job in before else j.reason.is_(None)
        changed = connection.execute(
            update(tables.jobs)
            .where(j.id == job, j.state == "pending", free)
            .values(reason=reason, message=why.get(job))
            .returning(j.digest)
        )
        digests.update(changed.scalars())
    return [key for digest in sorted(digests) for key in wanting(connection, digest)]
