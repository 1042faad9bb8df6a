"""Artifacts as jobs meet them: an input before use, and the result at the end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from loopscope.state import failpoints
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.store import ArtifactStore, Corrupt
from loopscope.state.db import jobs, shares
from loopscope.state.db.database import Database
from loopscope.state.failures import PASSING
from loopscope.state.folder import StateFolder
from loopscope.state.records import ArtifactRecord, JobHead


def verified_folder(state: StateFolder, stage: str, digest: str) -> Path:
    """Return a local folder of a published artifact once its bytes are those that were published.

    What the database recorded then counts, not the manifest beside the bytes: both can be
    changed together. Raises Corrupt, also when the database does not know the artifact.
    """
    with state.database.read() as connection:
        known = artifact_index.get(connection, digest)
    if known is None or known.stage != stage:
        raise Corrupt(f"{stage}/{digest[:12]} is not known")
    return state.artifacts.fetch(known)


def publish(
    state: StateFolder, job: JobHead, staging: Path, record: ArtifactRecord, *, now: float
) -> None:
    """Put a sealed artifact into place in the transaction that checks the job's token.

    If a crash falls between the two, the artifact is whole and is taken over
    by the next reconcile. Raises Fenced; then nothing was published.
    """
    earlier = state.artifacts.prepare(staging, record)  # hashed before the lock is taken
    with state.database.write() as connection:
        jobs.succeed(connection, job.id, job.token, now=now)
        published = state.artifacts.publish(staging, record, earlier)
        failpoints.reach("artifact-renamed")
        artifact_index.record(connection, published)
        shares.end(connection, job.id, now=now)
    failpoints.reach("artifact-committed")
    with suppress(*PASSING):  # a resync finds what is left
        discard_finished_work(state.database, state.artifacts, job.digest)


def discard_finished_work(database: Database, artifacts: ArtifactStore, digest: str) -> None:
    """Remove the shards of an action, if its artifact is published and no job makes it again.

    That is seen in the transaction in which they go: whoever was stopped since it looked, and lost
    its place, removes nothing of the work of others.
    """
    with database.write() as connection:
        is_published = artifact_index.get(connection, digest) is not None
        if is_published and jobs.find_active(connection, digest) is None:
            artifacts.discard_work(digest)
