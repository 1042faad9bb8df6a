"""The newest job of an action, as the objects that want it see it."""

from __future__ import annotations

from loopscope.specs.actions import Action
from loopscope.state.records import (
    CANCELLED,
    CODE_CHANGED,
    PREEMPTED,
    UNPLACEABLE,
    WAITS_FOR_SPACE,
    JobHead,
    ObjectRecord,
)


def job_words(stage: str, job: JobHead | None) -> tuple[str, str]:
    """Return reason and message of an object whose job waits, runs, or is not there yet."""
    if job is None or (job.state == "pending" and job.reason is None):
        return "JobPending", f"{stage} job waits for a worker"
    if job.state == "running":
        return "JobRunning", f"{stage} job {job.id} is running"
    if job.reason in (*WAITS_FOR_SPACE, CODE_CHANGED, UNPLACEABLE, PREEMPTED):
        return job.reason, f"{stage} job {job.id} waits: {job.message}"
    failed = f" (attempt {job.attempts} failed)" if job.attempts else ""
    message = f"{stage} job {job.id} is retried{failed}: {job.reason}: {job.message}"
    return "RetryingLater", message


def needs_a_human(job: JobHead, action: Action | None = None) -> bool:
    """Whether the job is not to be tried again by itself: it was cancelled by hand, or it failed.

    One that failed on another way to the same inputs than that of ``action`` is tried again.
    """
    if job.state == "failed":
        return action is None or job.way == action.way
    return job.state == "cancelled" and job.reason == CANCELLED


def edited_since(record: ObjectRecord, job: JobHead) -> bool:
    """Whether the object that queued the job was edited after it: then it is tried again."""
    return job.object == record.key and job.generation < record.generation
