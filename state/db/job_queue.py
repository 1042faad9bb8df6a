"""The active jobs as a scheduler sees them: without payloads, with all objects that want them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Float, Select, bindparam, case, exists, func, select

from loopscope.specs.keys import Key
from loopscope.state.db import shares, tables
from loopscope.state.db.job_reading import ACTIVE, HEAD_COLUMNS, head_in
from loopscope.state.records import JobHead, QueuedJob, Wanting

_j, _o, _p, _s = tables.jobs.c, tables.objects.c, tables.preemptions.c, tables.job_starts.c
_owner = tables.objects.alias("owner")
_QUEUED = (
    select(
        _j.id, _j.stage, _j.state, _j.digest, _j.kind, _j.namespace, _j.name, _j.worker,
        _j.not_before, _j.created_at, _j.started_at, _j.losses, _j.token, _j.reason, _j.message,
        _j.model, _p.by_job,
    )
    .outerjoin(tables.preemptions, _p.job_id == _j.id)
    .where(_j.state.in_(ACTIVE))
    .order_by(_j.id)
)  # fmt: skip
_WANTED_BY = (
    select(
        _o.wanted_digest, _o.kind, _o.namespace, _o.name, _o.owner_kind, _o.owner_name,
        _o.annotations, _owner.c.annotations.label("inherited"),
    )
    .join(tables.jobs, (_j.digest == _o.wanted_digest) & _j.state.in_(ACTIVE))
    .outerjoin(_owner, _owner.c.uid == _o.owner_uid)
    .order_by(_o.namespace, _o.name, _o.kind)
)  # fmt: skip
"""Built once: each start of a job reads the queue."""
_ONE_PENDING = select(tables.jobs.c.id).where(tables.jobs.c.state == "pending").limit(1)

_helped = tables.jobs.alias("helped")
_HELPS = (
    exists()
    .where(tables.shares.c.job_id == _j.id, tables.shares.c.of_job == _helped.c.id)
    .where(_helped.c.state.in_(ACTIVE))
)
_UNWANTED = (
    select(*HEAD_COLUMNS)
    .where(
        tables.jobs.c.state.in_(ACTIVE),
        ~exists().where(tables.objects.c.wanted_digest == tables.jobs.c.digest),
        ~_HELPS,
    )
    .order_by(tables.jobs.c.id)
)
"""Looks up each active job in an index: most objects have nothing to do with one."""


def unwanted(connection: Connection) -> list[JobHead]:
    """Return the active jobs whose digest no object wants and that help no active one, by id."""
    return [head_in(row) for row in connection.execute(_UNWANTED)]


def any_pending(connection: Connection) -> bool:
    """Whether a job waits."""
    return connection.execute(_ONE_PENDING).first() is not None


def active(connection: Connection) -> list[QueuedJob]:
    """Return the pending and running jobs by id; a share is wanted by whom its job is wanted."""
    wanted_by, helping = _wanted_by(connection), shares.listed(connection)
    digests = {job: share.digest for job, share in helping.items()}
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
            losses=row.losses,
            token=row.token,
            reason=row.reason,
            message=row.message,
            model=row.model,
            makes_room_for=row.by_job,
            wanted_by=wanted_by.get(digests.get(row.id, row.digest), ()),
            share=helping.get(row.id),
        )
        for row in connection.execute(_QUEUED)
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
    found = connection.execute(_USED, {"since": since, "now": now, "most": now - since})
    return {Key(*name): float(seconds) for *name, seconds in found}


def _used() -> Select[Any]:
    started = (
        select(
            _j.id, _j.namespace, _j.started_at, _j.finished_at,
            func.coalesce(_o.owner_kind, _j.kind).label("kind"),
            func.coalesce(_o.owner_name, _j.name).label("name"),
        )
        .join(tables.jobs, _j.id == _s.job_id)
        .outerjoin(
            tables.objects,
            (_o.kind == _j.kind) & (_o.namespace == _j.namespace) & (_o.name == _j.name),
        )
        .where(_s.started_at > bindparam("since"))
        .distinct()
    ).subquery().c  # fmt: skip
    now, most = bindparam("now", type_=Float), bindparam("most", type_=Float)
    spent = func.coalesce(started.finished_at, now) - started.started_at
    # the clock may have been set meanwhile
    within = case((spent < 0, 0.0), (spent > most, most), else_=spent)
    whose = (started.kind, started.namespace, started.name)
    return select(*whose, func.sum(within)).group_by(*whose)


_USED = _used()


def _wanted_by(connection: Connection) -> dict[str, tuple[Wanting, ...]]:
    """Return the objects that want each active job, by digest.

    An object's own annotations take precedence over those of its owner.
    """
    found: dict[str, tuple[Wanting, ...]] = {}
    for row in connection.execute(_WANTED_BY):
        belongs_to = Key(row.owner_kind, row.namespace, row.owner_name) if row.owner_kind else None
        annotations = {**(row.inherited or {}), **row.annotations}
        one = Wanting(Key(row.kind, row.namespace, row.name), belongs_to, annotations)
        found[row.wanted_digest] = (*found.get(row.wanted_digest, ()), one)
    return found
