"""The end of a job that went well: its artifact in place and its success, at once or not at all."""

from __future__ import annotations

from pathlib import Path

from state import artifact_index, failpoints, jobs
from state.folder import StateFolder
from state.records import ArtifactRecord, JobRecord


def publish(
    state: StateFolder, job: JobRecord, staging: Path, record: ArtifactRecord, *, now: float
) -> None:
    """Rename a sealed artifact into place in the transaction that checks the job's token.

    If a crash falls between the rename and the commit, the artifact is whole and is taken over
    by the next reconcile. Raises Fenced; then nothing was published.
    """
    with state.database.write() as connection:
        jobs.succeed(connection, job.id, job.token, now=now)
        state.artifacts.publish(staging, record)
        failpoints.reach("artifact-renamed")
        artifact_index.record(connection, record)
    failpoints.reach("artifact-committed")
    state.artifacts.discard_work(job.digest)
