"""Errors of a stage as failures: retry later, wait, or a human must act."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

from loopscope.state.artifacts.store import NOT_DAMAGE, Unreachable
from loopscope.state.db import jobs
from loopscope.state.db.connection import Connection
from loopscope.state.failures import Failure, TerminalFailure, TransientFailure
from loopscope.state.files import disk_full_words, is_disk_full
from loopscope.state.records import OTHER_KIND, JobHead
from loopscope.state.retry_policy import RetryPolicy
from loopscope.state.source_code import CodeChanged

NO_FAULT_OF_THE_JOB = ("DiskFull", "InputDamaged", "ArtifactsUnreachable", OTHER_KIND)
"""The job waits for space, for its input to be made again, for a network or for a worker of the
kind that began its shards, however long."""

_PASSES = NOT_DAMAGE | {errno.EIO, errno.ESTALE}


def failure_of(error: Exception, folder: Path) -> Failure:
    """Return the failure that a job ends with; free space is measured where ``folder`` lies.

    What the system refused for a moment comes first, whatever wraps it: a loader that cannot
    open a file because too many are open reports that the file is missing.
    """
    for link in _chain(error):
        if isinstance(link, CodeChanged):
            return link
        if not isinstance(link, Failure) and is_disk_full(link):
            return TransientFailure("DiskFull", f"{error}; {disk_full_words(folder)}")
        if isinstance(link, Unreachable):
            return TransientFailure("ArtifactsUnreachable", str(link))
        if isinstance(link, OSError) and link.errno in _PASSES:
            return TransientFailure("InputOutputError", str(error))
    match error:
        case Failure():
            return error
        case OSError():
            return TransientFailure("InputOutputError", str(error))
    message = f"{type(error).__name__}: {error} (see the worker's log)"
    return TerminalFailure("UnexpectedError", message)


def record_failure(
    connection: Connection, job: JobHead, failure: Failure, *, now: float, policy: RetryPolicy
) -> None:
    """End an attempt: tried again, postponed without losing it, or failed. Raises Fenced."""
    reason, message = failure.reason, failure.message
    if reason in NO_FAULT_OF_THE_JOB:
        until = now + policy.wait_seconds
        jobs.postpone(connection, job.id, job.token, reason, message, until=until)
        return
    transient = isinstance(failure, TransientFailure)
    jobs.fail(
        connection, job.id, job.token, reason, message,
        transient=transient, now=now, policy=policy,
    )  # fmt: skip


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
