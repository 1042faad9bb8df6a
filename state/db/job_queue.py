"""The active jobs as a scheduler sees them: without payloads, with all objects that want them."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from loopscope.specs.keys import Key
from loopscope.state.db import tables
from loopscope.state.db.jobs import ACTIVE
from loopscope.state.records import QueuedJob, Wanting

_p = tables.preemptions.c
_ONE_PENDING = select(tables.jobs.c.id).where(tables.jobs.c.state == "pending").limit(1)


def any_pending(connection: Connection) -> bool:
    """Whether a job waits."""
    return connection.execute(_ONE_PENDING).first() is not None


def active(connection: Connection) -> list[QueuedJob]:
    """Return the pending and running jobs by id."""
    j = tables.jobs.c
    query = select(
        j.id, j.stage, j.state, j.digest, j.kind, j.namespace, j.name, j.worker, j.not_before,
        j.created_at, j.started_at, j.token, j.reason, j.message, j.model, _p.by_job,
    ).outerjoin(tables.preemptions, _p.job_id == j.id).where(
        j.state.in_(ACTIVE)
    ).order_by(j.id)  # fmt: skip
    wanted_by = _wanted_by(connection)
    return [
        QueuedJob(
            id=row.id,
            stage=row.stage,
            state=row.state,
            object=Key(row.kind, row.namespace, row.name),
            worker=row.worker,
            not_before=row.not_before,
            created_at=row.created_at,
            started_at=row.started_at,
            token=row.token,
            reason=row.reason,
            message=row.message,
            model=row.model,
            makes_room_for=row.by_job,
            wanted_by=wanted_by.get(row.digest, ()),
        )
        for row in connection.execute(query)
    ]


def counts(connection: Connection) -> dict[tuple[str, str], int]:
    """Return how many jobs there are, by state and stage."""
    j = tables.jobs.c
    query = select(j.state, j.stage, func.count()).group_by(j.state, j.stage)
    return {(state, stage): int(number) for state, stage, number in connection.execute(query)}


def oldest_pending(connection: Connection) -> float | None:
    """Return when the oldest job that waits was queued (Unix seconds); None where none waits."""
    query = select(func.min(tables.jobs.c.created_at)).where(tables.jobs.c.state == "pending")
    found: float | None = connection.execute(query).scalar_one()
    return found


def used_seconds(connection: Connection, since: float, now: float) -> dict[Key, float]:
    """Return for how long jobs that started after ``since`` ran, by experiment.

    A job is charged to the owner of the object that queued it, or to that object itself.
    """
    o, j, s = tables.objects.c, tables.jobs.c, tables.job_starts.c
    query = (
        select(
            j.id, j.kind, j.namespace, j.name, j.started_at, j.finished_at,
            o.owner_kind, o.owner_name,
        )
        .join(tables.jobs, j.id == s.job_id)
        .outerjoin(
            tables.objects,
            (o.kind == j.kind) & (o.namespace == j.namespace) & (o.name == j.name),
        )
        .where(s.started_at > since)
        .distinct()
    )  # fmt: skip
    used: dict[Key, float] = {}
    for row in connection.execute(query):
        name = (row.owner_kind or row.kind, row.namespace, row.owner_name or row.name)
        spent = (row.finished_at if row.finished_at is not None else now) - row.started_at
        spent = min(max(0.0, spent), now - since)  # the clock may have been set meanwhile
        used[Key(*name)] = used.get(Key(*name), 0.0) + spent
    return used


def _wanted_by(connection: Connection) -> dict[str, tuple[Wanting, ...]]:
    """Return the objects that want each active job, by digest.

    An object's own annotations take precedence over those of its owner.
    """
    o, j = tables.objects.c, tables.jobs.c
    owner = tables.objects.alias("owner")
    query = (
        select(
            o.wanted_digest, o.kind, o.namespace, o.name, o.owner_kind, o.owner_name,
            o.annotations, owner.c.annotations.label("inherited"),
        )
        .join(tables.jobs, (j.digest == o.wanted_digest) & j.state.in_(ACTIVE))
        .outerjoin(owner, owner.c.uid == o.owner_uid)
        .order_by(o.namespace, o.name, o.kind)
    )  # fmt: skip
    found: dict[str, tuple[Wanting, ...]] = {}
    for row in connection.execute(query):
        belongs_to = Key(row.owner_kind, row.namespace, row.owner_name) if row.owner_kind else None
        annotations = {**(row.inherited or {}), **row.annotations}
        one = Wanting(Key(row.kind, row.namespace, row.name), belongs_to, annotations)
        found[row.wanted_digest] = (*found.get(row.wanted_digest, ()), one)
    return found
