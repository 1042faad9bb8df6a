"""The active jobs as a scheduler sees them: without payloads, with all objects that want them."""

from __future__ import annotations

from sqlalchemy import Connection, case, exists, func, select

from loopscope.specs.keys import Key
from loopscope.state.db import tables
from loopscope.state.db.job_reading import ACTIVE, HEAD_COLUMNS, head_in
from loopscope.state.records import JobHead, QueuedJob, Wanting

_p = tables.preemptions.c
_ONE_PENDING = select(tables.jobs.c.id).where(tables.jobs.c.state == "pending").limit(1)

_UNWANTED = (
    select(*HEAD_COLUMNS)
    .where(
        tables.jobs.c.state.in_(ACTIVE),
        ~exists().where(tables.objects.c.wanted_digest == tables.jobs.c.digest),
    )
    .order_by(tables.jobs.c.id)
)
"""Looks up each active job in an index: most objects have nothing to do with one."""


def unwanted(connection: Connection) -> list[JobHead]:
    """Return the active jobs whose digest no object wants, by id."""
    return [head_in(row) for row in connection.execute(_UNWANTED)]


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
    started = (
        select(
            j.id, j.namespace, j.started_at, j.finished_at,
            func.coalesce(o.owner_kind, j.kind).label("kind"),
            func.coalesce(o.owner_name, j.name).label("name"),
        )
        .join(tables.jobs, j.id == s.job_id)
        .outerjoin(
            tables.objects,
            (o.kind == j.kind) & (o.namespace == j.namespace) & (o.name == j.name),
        )
        .where(s.started_at > since)
        .distinct()
    ).subquery().c  # fmt: skip
    spent = func.coalesce(started.finished_at, now) - started.started_at
    # the clock may have been set meanwhile
    within = case((spent < 0, 0.0), (spent > now - since, now - since), else_=spent)
    whose = (started.kind, started.namespace, started.name)
    found = connection.execute(select(*whose, func.sum(within)).group_by(*whose))
    return {Key(*name): float(seconds) for *name, seconds in found}


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
