"""Examination and repair of a state folder at rest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loopscope.controller.jobs.leases import take_back
from loopscope.controller.runtime import leadership
from loopscope.state import invariants
from loopscope.state.artifacts.consistency import DATABASE_PROBLEMS, Comparison, Finding, compare
from loopscope.state.db import jobs
from loopscope.state.folder import StateFolder, open_state
from loopscope.state.read_only import look_at
from loopscope.state.records import JobHead
from loopscope.state.retry_policy import RetryPolicy
from loopscope.state.workers import worker_lives


@dataclass(frozen=True)
class Repaired:
    """What was found, what of it was repaired, and what a second look still finds."""

    repaired: list[Finding]
    after: Comparison


def examine(path: Path, *, hashing: bool = True) -> Comparison:
    """Look at a state folder and change nothing in it.

    While a controller works there, a finding may be work under way. Raises TerminalFailure for
    the database of a newer Loopscope, OSError when files cannot be looked at now.
    """
    state = look_at(path)
    try:
        seen = compare(state, hashing=hashing)
        if not any(finding.problem in DATABASE_PROBLEMS for finding in seen.findings):
            seen.findings += _jobs_without_worker(state)
            seen.findings += _broken_invariants(state)
    finally:
        state.database.close()
    return seen


def repair_findings(path: Path, now: float) -> Repaired:
    """Repair what the state folder alone has the means for, then look again.

    Raises AnotherController while one works there. A database that cannot be read is left as it
    is, and so is all that is compared with it.
    """
    with leadership(look_at(path)):
        before = examine(path)
        repaired = [finding for finding in before.findings if finding.repair is not None]
        if any(finding.problem in DATABASE_PROBLEMS for finding in before.findings):
            return Repaired([], before)
        if repaired:
            state = open_state(path)
            for finding in repaired:
                assert finding.repair is not None  # chosen above
                finding.repair(state, now)
            state.database.close()
            after = examine(path, hashing=False)  # what was hashed a moment ago is as it was
            return Repaired(repaired, after)
        return Repaired([], before)


def _jobs_without_worker(state: StateFolder) -> list[Finding]:
    with state.database.read() as connection:
        running = jobs.running(connection)
    return [
        Finding(
            "JobWithoutWorker",
            f"{job.stage} job {job.id}",
            f"it runs, says the database, and its worker {job.worker} does not",
            repair=partial(_take_back, job),
        )
        for job in running
        if job.worker is None or not worker_lives(job.worker)
    ]


def _broken_invariants(state: StateFolder) -> list[Finding]:
    """Return which promises the rows of the database break; artifacts are compared elsewhere."""
    with state.database.read() as connection:
        seen = invariants.see(connection)
    return [
        Finding("InvariantBroken", broken.where, f"{broken.invariant}: {broken.what}")
        for asked in invariants.AT_REST
        for broken in asked(seen)
    ]


def _take_back(job: JobHead, state: StateFolder, now: float) -> None:
    with state.database.write() as connection:
        take_back(connection, job, RetryPolicy(), now)
