"""The promises of ARCHITECTURE.md that a test asks about, beside those that ``fsck`` asks about.

They want faults to have stopped, a second look, or bytes to be hashed. A function reads, changes
nothing and knows no clock; ``violations`` asks all that a folder at rest can answer.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection

from loopscope.state.artifacts.store import ArtifactStore, Corrupt
from loopscope.state.db import jobs, tables
from loopscope.state.folder import StateFolder
from loopscope.state.invariants import AT_REST, Seen, Violation, name_of, see
from loopscope.state.records import JobHead, ObjectRecord

STARTS_WINDOW_SECONDS = 60.0
ROUNDING_SECONDS = 1e-3
"""Dates that were moved because the clock was set are rounded each time."""
Rows = dict[str, list[tuple[Any, ...]]]


def violations(
    state: StateFolder,
    *,
    hash_digests: Collection[str] = (),
    starts_per_minute: int | None = None,
) -> list[Violation]:
    """Return all that is broken in a folder at rest.

    Artifacts are checked for presence and size; the bytes of those in ``hash_digests`` are
    hashed as well. The rate of job starts is checked when its limit is given.
    """
    with state.database.read() as connection:
        seen = see(connection)
    found = [item for check in AT_REST for item in check(seen)]
    found += ready_objects_have_their_artifacts(seen, state.artifacts, hash_digests)
    found += artifacts_were_made_by_their_code(seen, state.artifacts, hash_digests)
    if starts_per_minute is not None:
        found += starts_keep_the_rate(seen, starts_per_minute)
    return found


def every_object_is_settled(seen: Seen) -> list[Violation]:
    """I1: with faults stopped, every object was acted on and is Ready or Stalled; no job is left.

    True after a bounded number of reconciles only, so it is not among ``violations``.
    """
    found = []
    for record in seen.objects:
        if record.status.observed_generation != record.generation:
            what = f"generation {record.generation}, observed {record.status.observed_generation}"
            found.append(Violation("I1", str(record.key), what))
        elif not (record.ready or record.stalled):
            found.append(Violation("I1", str(record.key), "is neither Ready nor Stalled"))
    for job in seen.jobs:
        if job.state in jobs.ACTIVE:
            found.append(Violation("I1", name_of(job), f"is still {job.state}"))
    return found


def no_row_was_written(before: Rows, after: Rows) -> list[Violation]:
    """I2: a converged system writes no row in a resync. Takes two answers of ``rows``."""
    return [
        Violation("I2", table, f"{len(before[table])} rows before, {len(after[table])} after")
        for table in before
        if before[table] != after[table]
    ]


def ready_objects_have_their_artifacts(
    seen: Seen, artifacts: ArtifactStore, hash_digests: Collection[str] = ()
) -> list[Violation]:
    """I4: no object is Ready whose artifact is missing or corrupt.

    Damage that nobody looked for yet shows here, too: whoever did it must allow for it.
    """
    found = []
    for record in seen.objects:
        if not record.ready or record.status.artifact is None:
            continue
        what = _damage(seen, artifacts, record, hash_digests)
        if what is not None:
            found.append(Violation("I4", str(record.key), what))
    return found


def _damage(
    seen: Seen,
    artifacts: ArtifactStore,
    record: ObjectRecord,
    hash_digests: Collection[str],
) -> str | None:
    reference = record.status.artifact
    assert reference is not None  # the caller looked
    if record.wanted_digest != reference.digest:
        return f"rests on {reference.digest[:12]} but wants {(record.wanted_digest or '-')[:12]}"
    known = seen.artifacts.get(reference.digest)
    if known is None:
        return f"{reference.stage}/{reference.digest[:12]} is not in the index"
    if (known.stage, known.content_digest) != (reference.stage, reference.content_digest):
        return f"{reference.stage}/{reference.digest[:12]} has another content than the index says"
    try:
        artifacts.check_presence(known)
        if known.digest in hash_digests:
            artifacts.verify(known)
    except (Corrupt, OSError) as damage:
        return str(damage)
    return None


def write_was_entitled(before: JobHead | None, token: int) -> list[Violation]:
    """I5: no write with an old fencing token is accepted.

    Ask after a worker's write went through; ``before`` is the job as it stood when it did.
    """
    if before is not None and before.state == "running" and before.token == token:
        return []
    stood = f"{before.state} under token {before.token}" if before else "gone"
    where = name_of(before) if before else "job"
    return [Violation("I5", where, f"accepted a write under token {token} while {stood}")]


def starts_keep_the_rate(seen: Seen, limit: int) -> list[Violation]:
    """I11: at most ``limit`` job starts in any 60 seconds, as far as starts are remembered.

    Their dates are moved when somebody sets the clock, so their distances are real seconds.
    """
    starts = [started_at for _, _, started_at in seen.starts]
    return [
        Violation("I11", f"starts at {first:.3f}", f"more than {limit} within 60 seconds")
        for first, beyond in zip(starts, starts[limit:], strict=False)
        if beyond - first < STARTS_WINDOW_SECONDS - ROUNDING_SECONDS
    ]


def artifacts_were_made_by_their_code(
    seen: Seen, artifacts: ArtifactStore, digests: Collection[str]
) -> list[Violation]:
    """I15: what is published under a digest was made by the code revision that the digest names.

    Asked about ``digests``, whose manifests are read; jobs of old databases do not say.
    """
    named = {job.digest: job.code_revision for job in seen.jobs if job.code_revision is not None}
    found = []
    for digest in sorted(named.keys() & set(digests) & seen.artifacts.keys()):
        stage = seen.artifacts[digest].stage
        try:
            made_by = artifacts.manifest(stage, digest).get("codeRevision")
        except (Corrupt, OSError):
            continue  # damage is I4's
        if made_by not in (None, named[digest]):
            what = f"was made by code revision {made_by}, its digest names {named[digest]}"
            found.append(Violation("I15", f"{stage}/{digest[:12]}", what))
    return found


def rows(connection: Connection) -> Rows:
    """Return every row of every table: what ``no_row_was_written`` compares."""
    return {
        table.name: [tuple(row) for row in connection.execute(table.select())]
        for table in tables.metadata.sorted_tables
    }
