"""The durable job queue: leases, fencing tokens, retries and the start-rate limit.

States: pending -> running -> succeeded | failed | cancelled; running -> pending when a lease
is lost, a transient failure is retried or a worker stops. Nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, case, delete, func, insert, select, update

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state import failpoints
from loopscope.state.db import tables
from loopscope.state.db.dialect.statements import upsert
from loopscope.state.db.job_reading import (
    ACTIVE,
    HEAD_COLUMNS,
    active_digests,
    active_inputs,
    failed_with,
    find_active,
    find_latest,
    get,
    head,
    head_in,
    latest_of,
    listed,
    progress_of,
    running,
    served_by,
    starts_since,
)
from loopscope.state.db.objects import raise_counter
from loopscope.state.job_facts import facts_of
from loopscope.state.records import JobHead, Progress
from loopscope.state.retry_policy import RetryPolicy

__all__ = [
    "ACTIVE", "Fenced", "active_digests", "active_inputs", "adopt_artifact", "cancel", "claim",
    "enqueue", "fail", "failed_with", "find_active", "find_latest", "forgive_losses", "get",
    "head", "heartbeat", "latest_of", "listed", "lose", "postpone", "progress_of",
    "release", "report_progress", "retry", "running", "served_by", "starts_since", "succeed",
]  # fmt: skip

STARTS_KEPT_SECONDS = 3600
STARTS_TRIMMED_EVERY = 100
"""Older starts are forgotten with each hundredth one: whoever reads them says since when."""
_j = tables.jobs.c
_p = tables.preemptions.c
_ABOUT = (_p.job_id == bindparam("job")) | (_p.by_job == bindparam("job"))
_CLAIM = (
    update(tables.jobs)
    .where(_j.id == bindparam("job"), _j.state == "pending")
    .values(
        state="running",
        token=bindparam("token"),
        worker=bindparam("worker"),
        started_at=bindparam("now"),
        lease_expires_at=bindparam("until"),
        reason=case((_j.reason == "OutOfMemory", _j.reason), else_=None),
        message=case((_j.reason == "OutOfMemory", _j.message), else_=None),
    )
    .returning(
        *HEAD_COLUMNS,
        select(func.count(_p.job_id)).where(_ABOUT).scalar_subquery().label("requests"),
    )
)
_NOTE_START = insert(tables.job_starts)
_FORGET_STARTS = delete(tables.job_starts).where(
    tables.job_starts.c.started_at < bindparam("until")
)
_FORGET_PROGRESS = delete(tables.progress).where(tables.progress.c.job_id == bindparam("job"))
_FORGET_REQUESTS = delete(tables.preemptions).where(_ABOUT)
_BEAT = (
    update(tables.jobs)
    .where(_j.id == bindparam("job"), _j.token == bindparam("held"), _j.state == "running")
    .values(lease_expires_at=bindparam("until"))
    .returning(
        _j.id,
        select(_p.words).where(_p.job_id == bindparam("job")).scalar_subquery().label("words"),
    )
)
"""Built once: a claim holds the write lock."""


class Fenced(Exception):
    """The worker lost the job: a newer claim, a cancel or an end came first."""


def enqueue(
    connection: Connection, action: Action, key: Key, generation: int, *, now: float
) -> tuple[int, bool]:
    """Return the id of the active job of this digest, adding one if there is none.

    The second value is whether a job was added.
    """
    active = find_active(connection, action.digest)
    if active is not None:
        return active.id, False
    return _insert(
        connection,
        key,
        stage=action.stage,
        digest=action.digest,
        generation=generation,
        payload=action.payload,
        code_revision=action.code_revision,
        now=now,
    ), True


def claim(
    connection: Connection, job_id: int, worker: str, lease_seconds: float, *, now: float
) -> JobHead:
    """Give a pending job to a worker under a new, higher fencing token.

    That the try before ran out of memory stays written: it makes the worker take less. Nobody makes
    room for this job any more.
    """
    token = raise_counter(connection, "fencing_token")
    how = {"token": token, "worker": worker, "now": now, "until": now + lease_seconds}
    claimed = connection.execute(_CLAIM, {"job": job_id, **how}).first()
    if claimed is None:
        raise Fenced(f"job {job_id} is not pending")
    connection.execute(_NOTE_START, {"token": token, "job_id": job_id, "started_at": now})
    if token % STARTS_TRIMMED_EVERY == 0:
        connection.execute(_FORGET_STARTS, {"until": now - STARTS_KEPT_SECONDS})
    if claimed.requests:
        connection.execute(_FORGET_REQUESTS, {"job": job_id})
    return head_in(claimed)


def heartbeat(
    connection: Connection, job_id: int, token: int, lease_seconds: float, *, now: float
) -> str | None:
    """Extend the lease; return for whom the job is to make room, None if for nobody.

    Raises Fenced if this worker lost the job.
    """
    lease = {"job": job_id, "held": token, "until": now + lease_seconds}
    heard = connection.execute(_BEAT, lease).first()
    if heard is None:
        _check(connection, job_id, token)
        return None
    words: str | None = heard.words
    return words


def report_progress(connection: Connection, job_id: int, token: int, seen: Progress) -> None:
    """Write how far the job is. Raises Fenced."""
    _check(connection, job_id, token)
    upsert(connection, tables.progress, {**vars(seen), "job_id": job_id})


def succeed(connection: Connection, job_id: int, token: int, *, now: float) -> None:
    """End the job as succeeded; call in the transaction that publishes. Raises Fenced."""
    _own(
        connection,
        job_id,
        token,
        state="succeeded",
        finished_at=now,
        lease_expires_at=None,
        reason=None,
        message=None,
    )


def fail(
    connection: Connection,
    job_id: int,
    token: int,
    reason: str,
    message: str,
    *,
    transient: bool,
    now: float,
    policy: RetryPolicy,
) -> None:
    """Record a failed attempt: retried after a backoff if transient and attempts remain."""
    job = _check(connection, job_id, token)
    attempts = job.attempts + 1
    again = transient and attempts < policy.attempts_max
    _own(
        connection,
        job_id,
        token,
        state="pending" if again else "failed",
        attempts=attempts,
        not_before=now + policy.delay_seconds(attempts) if again else job.not_before,
        finished_at=None if again else now,
        lease_expires_at=None,
        worker=None,
        reason=reason,
        message=message,
    )


def postpone(
    connection: Connection, job_id: int, token: int, reason: str, message: str, *, until: float
) -> None:
    """Give the job back for a cause that is not its own: pending again, no attempt lost."""
    _own(
        connection,
        job_id,
        token,
        state="pending",
        not_before=until,
        worker=None,
        lease_expires_at=None,
        reason=reason,
        message=message,
    )


def release(connection: Connection, job_id: int, token: int) -> None:
    """Give the lease back unfinished (a stop): pending again, no attempt lost."""
    _own(connection, job_id, token, state="pending", worker=None, lease_expires_at=None)


def lose(
    connection: Connection,
    job: JobHead,
    how: str = "",
    *,
    now: float,
    policy: RetryPolicy,
) -> bool:
    """Reclaim the lease of a worker that died; return whether the job may run again.

    ``how``: how it ended ("was killed by signal 9"), empty if unknown. Losses do not count as
    attempts: a worker that is killed is not a failing job, but one that is killed again and again
    without ever sealing another shard must not go on for ever. Raises Fenced, also when the lease
    was renewed since ``job`` was read.
    """
    if _check(connection, job.id, job.token).lease_expires_at != job.lease_expires_at:
        raise Fenced(f"job {job.id} was heard of meanwhile")
    losses = job.losses + 1
    if losses < policy.losses_max:
        _own(
            connection,
            job.id,
            job.token,
            state="pending",
            losses=losses,
            worker=None,
            lease_expires_at=None,
        )
        return True
    _own(
        connection,
        job.id,
        job.token,
        state="failed",
        losses=losses,
        finished_at=now,
        worker=None,
        lease_expires_at=None,
        reason="WorkerLost",
        message=f"the worker was lost {losses} times during this job, the last one "
        f"{how or 'died'}; look at the workers' logs (logs/ in the state folder) and at the "
        "machine's memory, then `loopscope retry`",
    )
    return False


def forgive_losses(connection: Connection, job_id: int, token: int) -> None:
    """Count losses from 0 again, because the job got on since the last one. Raises Fenced."""
    _own(connection, job_id, token, losses=0)


def cancel(connection: Connection, job_id: int, reason: str, message: str, *, now: float) -> bool:
    """Cancel a pending or running job; return whether it was active."""
    j = tables.jobs.c
    changed = connection.execute(
        update(tables.jobs)
        .where(j.id == job_id, j.state.in_(ACTIVE))
        .values(
            state="cancelled",
            finished_at=now,
            lease_expires_at=None,
            reason=reason,
            message=message,
        )
    )
    return bool(changed.rowcount == 1)


def adopt_artifact(connection: Connection, job_id: int, *, now: float) -> None:
    """End an active job as succeeded because its artifact already exists."""
    j = tables.jobs.c
    connection.execute(
        update(tables.jobs)
        .where(j.id == job_id, j.state.in_(ACTIVE))
        .values(
            state="succeeded", finished_at=now, lease_expires_at=None, reason=None, message=None
        )
    )


def retry(connection: Connection, job_id: int, *, now: float) -> int:
    """Queue a failed or cancelled job again as a new job; return the new id."""
    job = get(connection, job_id)
    if job is None:
        raise KeyError(job_id)
    failpoints.reach("job-retry")
    active = find_active(connection, job.digest)
    if active is not None:
        return active.id
    return _insert(
        connection,
        job.object,
        stage=job.stage,
        digest=job.digest,
        generation=job.generation,
        payload=job.payload,
        code_revision=job.code_revision,
        now=now,
    )


def _insert(
    connection: Connection,
    key: Key,
    *,
    stage: str,
    digest: str,
    generation: int,
    payload: Mapping[str, object],
    code_revision: int | None,
    now: float,
) -> int:
    result = connection.execute(
        insert(tables.jobs).values(
            stage=stage,
            digest=digest,
            state="pending",
            **key._asdict(),
            generation=generation,
            not_before=now,
            created_at=now,
            payload=payload,
            code_revision=code_revision,
            **facts_of(stage, payload),
        )
    )
    key_row = result.inserted_primary_key
    assert key_row is not None  # a serial primary key is always returned
    return int(key_row[0])


def _check(connection: Connection, job_id: int, token: int) -> JobHead:
    """Return the job that runs under a token. Raises Fenced."""
    job = head(connection, job_id)
    if job is None or job.state != "running" or job.token != token:
        found = f"{job.state} under token {job.token}" if job else "gone"
        raise Fenced(f"job {job_id} is {found}, not running under token {token}")
    return job


def _own(connection: Connection, job_id: int, token: int, **values: object) -> None:
    """Write to a job that runs under a token; one that waits again has not got anywhere."""
    j = tables.jobs.c
    which = (j.id == job_id) & (j.token == token) & (j.state == "running")
    changed = connection.execute(update(tables.jobs).where(which).values(**values))
    if changed.rowcount != 1:
        _check(connection, job_id, token)
    if values.get("state") == "pending":
        connection.execute(_FORGET_PROGRESS, {"job": job_id})
