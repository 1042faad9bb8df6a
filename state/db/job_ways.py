"""The way to a job's inputs: it may move while the job waits; the digest stays."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state.db import tables
from loopscope.state.db.job_reading import of_digest
from loopscope.state.job_facts import facts_of
from loopscope.state.records import CODE_CHANGED, JobHead

_j = tables.jobs.c
_REFUSED = (_j.state == "pending") & (_j.reason == CODE_CHANGED)


def last_word(connection: Connection, action: Action, key: Key) -> JobHead | None:
    """Return the newest job of an action that is relevant to the object ``key``.

    A failure on another object's way to the same inputs is not.
    """
    for job in of_digest(connection, action.digest):
        if job.state != "failed" or job.object == key or job.way == action.way:
            return job
    return None


def renew(connection: Connection, job_id: int, action: Action, key: Key, generation: int) -> None:
    """Let a pending job of this action be what the object ``key`` would order now."""
    connection.execute(
        update(tables.jobs)
        .where(_j.id == job_id, _j.state == "pending", _j.digest == action.digest)
        .values(
            kind=key.kind,
            namespace=key.namespace,
            name=key.name,
            generation=generation,
            payload=action.payload,
            code_revision=action.code_revision,
            **facts_of(action.stage, action.payload),
        )
    )


def any_refused(connection: Connection) -> bool:
    """Whether a pending job was refused by a worker of other code."""
    return connection.execute(select(_j.id).where(_REFUSED).limit(1)).first() is not None


def let_refused_go(connection: Connection, *, now: float) -> None:
    """Let jobs that workers of other code refused start at once: the controller is a new one."""
    connection.execute(
        update(tables.jobs).where(_REFUSED).values(not_before=now, reason=None, message=None)
    )
