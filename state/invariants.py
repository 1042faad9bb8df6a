"""The promises of ARCHITECTURE.md, "Invariants", as functions: each returns what breaks it.

Here are those that the rows of a state folder at rest show by themselves: ``fsck`` asks them. A
function reads, changes nothing and knows no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import jobs, objects, tables
from loopscope.state.records import ArtifactRecord, ChangeRecord, JobHead, ObjectRecord


@dataclass(frozen=True, order=True)
class Violation:
    """A broken promise: its number (``I4``; ``rows`` for a dangling row), where, and what."""

    invariant: str
    where: str
    what: str

    def __str__(self) -> str:
        """Return the violation as one line."""
        return f"{self.invariant} {self.where}: {self.what}"


@dataclass(frozen=True)
class Seen:
    """What the invariants look at, read in one transaction."""

    objects: list[ObjectRecord]
    jobs: list[JobHead]
    artifacts: dict[str, ArtifactRecord]
    changes: list[ChangeRecord]
    starts: list[tuple[int, int, float]]
    """Token, job and time of each remembered job start, by time."""
    progress_jobs: list[int]
    version: int
    token: int


def see(connection: Connection) -> Seen:
    """Read all that the invariants look at."""
    s = tables.job_starts.c
    oldest = connection.execute(select(func.min(tables.changes.c.resource_version))).scalar()
    return Seen(
        objects=objects.listed(connection),
        jobs=jobs.listed(connection, ended=True),
        artifacts={record.digest: record for record in artifact_index.listed(connection)},
        changes=objects.changes_since(connection, oldest - 1) if oldest is not None else [],
        starts=[
            (row.token, row.job_id, row.started_at)
            for row in connection.execute(tables.job_starts.select().order_by(s.started_at))
        ],
        progress_jobs=list(connection.execute(select(tables.progress.c.job_id)).scalars()),
        version=objects.counter(connection, "resource_version"),
        token=objects.counter(connection, "fencing_token"),
    )


def one_active_job_per_digest(seen: Seen) -> list[Violation]:
    """I3: an action digest has at most one pending or running job."""
    count = Counter(job.digest for job in seen.jobs if job.state in jobs.ACTIVE)
    return [
        Violation("I3", digest, f"{number} jobs are pending or running")
        for digest, number in count.items()
        if number > 1
    ]


def tokens_were_issued(seen: Seen) -> list[Violation]:
    """I5, at rest: every token in use was issued, and only once; a running job has one."""
    found = []
    holders = [job for job in seen.jobs if job.token]
    shared = {token for token, n in Counter(job.token for job in holders).items() if n > 1}
    for job in holders:
        if job.token > seen.token:
            found.append(Violation("I5", name_of(job), f"token {job.token} was never issued"))
        if job.token in shared:
            found.append(Violation("I5", name_of(job), f"shares token {job.token}"))
    started = {token: job_id for token, job_id, _ in seen.starts}
    for job in seen.jobs:
        if job.state != "running":
            continue
        if started.get(job.token, job.id) != job.id or not job.token:
            found.append(Violation("I5", name_of(job), f"was not started under token {job.token}"))
    return found


def observed_generations_are_not_ahead(seen: Seen) -> list[Violation]:
    """I6, at rest: ``observedGeneration`` <= ``generation``, of the status and its conditions."""
    found = []
    for record in seen.objects:
        observed = [record.status.observed_generation]
        observed += [c.observed_generation for c in record.status.conditions]
        if max(observed) > record.generation or record.generation < 1:
            what = f"generation {record.generation}, observed {max(observed)}"
            found.append(Violation("I6", str(record.key), what))
    return found


def versions_and_change_log_agree(seen: Seen) -> list[Violation]:
    """I7, at rest: the log has no gap, and its last word on a key is what the objects show."""
    found = []
    numbers = [change.resource_version for change in seen.changes]
    if numbers and numbers != list(range(numbers[0], seen.version + 1)):
        what = f"{len(numbers)} lines from {numbers[0]} to {numbers[-1]}, newest is {seen.version}"
        found.append(Violation("I7", "change log", what))
    last = {change.key: change for change in seen.changes}
    for record in seen.objects:
        change = last.pop(record.key, None)
        if record.resource_version > seen.version:
            what = f"version {record.resource_version} was never issued"
            found.append(Violation("I7", str(record.key), what))
        if change is None and numbers and record.resource_version >= numbers[0]:
            found.append(Violation("I7", str(record.key), "its last change is not in the log"))
        if change and (
            change.type == "DELETED" or change.resource_version != record.resource_version
        ):
            what = f"is at {record.resource_version}; the log ends with {change.type} at "
            found.append(Violation("I7", str(record.key), f"{what}{change.resource_version}"))
    for key, change in last.items():
        if change.type != "DELETED":
            found.append(Violation("I7", str(key), "is gone, but the log does not say so"))
    return found


def only_finalizers_delay_a_deletion(seen: Seen) -> list[Violation]:
    """I8, at rest: an object that is marked as deleted still has a finalizer to wait for."""
    return [
        Violation("I8", str(record.key), "is marked as deleted and has no finalizer")
        for record in seen.objects
        if record.deletion_timestamp is not None and not record.finalizers
    ]


def job_rows_fit_their_state(seen: Seen) -> list[Violation]:
    """I12, at rest: ended jobs have an end and no lease, running ones a lease and no end."""
    found = []
    for job in seen.jobs:
        ended = job.state not in jobs.ACTIVE
        if ended != (job.finished_at is not None):
            found.append(Violation("I12", name_of(job), f"{job.state}, ended at {job.finished_at}"))
        leased = job.lease_expires_at is not None
        if leased != (job.state == "running") or (leased and job.worker is None):
            what = f"{job.state}, worker {job.worker}, lease until {job.lease_expires_at}"
            found.append(Violation("I12", name_of(job), what))
    return found


def rows_refer_to_rows(seen: Seen) -> list[Violation]:
    """No row points at nothing: owners, the jobs of starts and of progress."""
    found = []
    by_uid = {record.uid: record.key for record in seen.objects}
    for record in seen.objects:
        if record.owner_uid is not None and by_uid.get(record.owner_uid) != record.owner:
            what = f"its owner {record.owner} ({record.owner_uid}) does not exist"
            found.append(Violation("rows", str(record.key), what))
    known = {job.id for job in seen.jobs}
    named = {"job_starts": [job_id for _, job_id, _ in seen.starts], "progress": seen.progress_jobs}
    for table, job_ids in named.items():
        missing = set(job_ids) - known
        found += [Violation("rows", table, f"names job {j}: there is none") for j in missing]
    return found


def name_of(job: JobHead) -> str:
    """Return how a violation names a job."""
    return f"{job.stage} job {job.id}"


AT_REST: tuple[Callable[[Seen], list[Violation]], ...] = (
    one_active_job_per_digest,
    tokens_were_issued,
    observed_generations_are_not_ahead,
    versions_and_change_log_agree,
    only_finalizers_delay_a_deletion,
    job_rows_fit_their_state,
    rows_refer_to_rows,
)
