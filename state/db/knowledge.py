"""A fingerprint of all that a plan reads from the database, to find out whether it changed."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from loopscope.state.db import jobs, pauses, tables

Knowledge = tuple[object, ...]
"""Equal when no plan can have become another one. Heartbeats and progress are not in it."""

_j, _a, _i = tables.jobs.c, tables.artifacts.c, tables.inputs.c
_COUNTERS = select(tables.counters.c.name, tables.counters.c.value).order_by(tables.counters.c.name)
_ACTIVE = (
    select(_j.id, _j.state, _j.attempts, _j.losses, _j.not_before, _j.reason, _j.message)
    .where(_j.state.in_(jobs.ACTIVE))
    .order_by(_j.id)
)
_NEWEST = select(func.max(_j.id))
_ARTIFACTS = select(func.count(), func.sum(_a.created_at))
_INPUTS = select(func.count(), func.sum(_i.observed_at))


def knowledge(connection: Connection) -> Knowledge:
    """Return the versions of objects and leases, the active jobs, and counts of the rest.

    A job that ended is seen as one that is active no more; of one that came and went, the number
    stays.
    """
    jobs_now = (tuple(tuple(row) for row in connection.execute(q)) for q in (_ACTIVE, _NEWEST))
    return (*beside_jobs(connection), *jobs_now)


def beside_jobs(connection: Connection) -> Knowledge:
    """Return the same without the jobs: all that the order of one rests on, and whether one began.

    It takes as long however many wait.
    """
    queries = (_COUNTERS, _ARTIFACTS, _INPUTS)
    found = (tuple(tuple(row) for row in connection.execute(query)) for query in queries)
    return (*found, tuple(pauses.listed(connection).items()))
