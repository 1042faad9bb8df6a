"""Comparison of the database with the artifact store, both ways, and its repairs.

``compare`` reads only. Each finding carries its repair, if the state folder alone has what that
takes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.manifests import was_made_again
from loopscope.state.artifacts.store import ArtifactStore, Corrupt, Differs, Stored
from loopscope.state.db import events, jobs, objects
from loopscope.state.db.database import HEAD_REVISION, schema_revision
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import StateFolder
from loopscope.state.records import ArtifactRecord, JobHead, ObjectRecord

Repair = Callable[[StateFolder, float], None]
"""Repairs one finding, at a time in Unix seconds. Doing it twice is harmless."""

ADVICE = {
    "DatabaseMissing": "run `loopscope rebuild SPECS`",
    "DatabaseDamaged": "run `loopscope rebuild SPECS`",
    "SchemaOutdated": "any command that changes something migrates it, after a backup",
    "ArtifactMissing": "--repair forgets it; the next `run` makes it again where it is wanted",
    "ArtifactCorrupt": "--repair sets it aside; the next `run` makes it again where it is wanted",
    "ArtifactReplaced": "--repair takes it over: it is whole, and newer than its record",
    "ArtifactUnindexed": "--repair takes it over: it is whole",
    "ForeignFile": "--repair sets it aside",
    "LeftoverShards": "--repair removes it: no job goes on from there",
    "LeftoverStaging": "--repair removes it: no job writes there",
    "ObjectWithoutArtifact": "the next `run` or `controller` makes it again",
    "JobWithoutWorker": "--repair takes its lease back, as the next `run` or `controller` does",
    "InvariantBroken": "report it, with a copy of the state folder",
}
"""Every problem that can be found, and what to do."""

DATABASE_PROBLEMS = ("DatabaseMissing", "DatabaseDamaged", "SchemaOutdated")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    problem: str
    """A key of ``ADVICE``."""
    subject: str
    what: str
    bytes: int = 0
    """Its size on the disk."""
    repair: Repair | None = field(default=None, repr=False, compare=False)


@dataclass
class Comparison:
    """The findings of a look at a state folder, and what is whole in it."""

    findings: list[Finding] = field(default_factory=list)
    whole: list[ArtifactRecord] = field(default_factory=list)
    quarantined: int = 0
    quarantined_bytes: int = 0
    trashed: int = 0
    trashed_bytes: int = 0


@dataclass(frozen=True)
class _Rows:
    """What the database holds, read in one transaction."""

    artifacts: dict[str, ArtifactRecord]
    objects: list[ObjectRecord]
    active: list[JobHead]


def compare(state: StateFolder, *, hashing: bool = True) -> Comparison:
    """Compare database and disk; with ``hashing``, every byte of every artifact.

    Where the database cannot be read, artifacts are only checked by themselves. Raises OSError
    when files cannot be looked at now.
    """
    seen = Comparison()
    rows = _read(state, seen)
    found = set()
    rest: dict[str, list[Stored]] = defaultdict(list)
    for thing in state.artifacts.contents():
        if thing.kind == "artifact" and _DIGEST.fullmatch(thing.name):
            found.add((thing.group, thing.name))
            _look_at_artifact(state.artifacts, thing, rows, seen, hashing)
        elif thing.kind in ("artifact", "foreign"):
            seen.findings.append(_foreign(thing))
        else:
            rest[thing.kind].append(thing)
    if rows is not None:
        _look_for_missing(rows, found, seen)
        _look_for_leftovers(rest["shards"], rest["staging"], rows, seen)
    seen.quarantined, seen.quarantined_bytes = _counted(rest["quarantine"])
    seen.trashed, seen.trashed_bytes = _counted(rest["trash"])
    return seen


def _counted(things: list[Stored]) -> tuple[int, int]:
    return len(things), sum(thing.bytes for thing in things)


# -- the database ----------------------------------------------------------------------------


def database_problem(state: StateFolder) -> Finding | None:
    """Return what keeps the database from being read, or None when it is whole."""
    database = state.database.dialect
    size = database.size_bytes()
    if size is None:
        return Finding("DatabaseMissing", database.name, "there is no database")
    if size == 0:
        return Finding("DatabaseDamaged", database.name, "it is empty")
    try:
        with state.database.read() as connection:
            complaints = database.complaints(connection)
            revision = schema_revision(connection)
    except TerminalFailure as failure:
        if failure.reason != "DatabaseDamaged":
            raise
        what = f"{database.kind} cannot read it"
        return Finding("DatabaseDamaged", database.name, what, size)
    if complaints:
        what = f"{len(complaints)} complaints of {database.kind}, the first: {complaints[0]}"
        return Finding("DatabaseDamaged", database.name, what, size)
    if revision is None:
        return Finding("DatabaseDamaged", database.name, "it holds no tables of Loopscope")
    if revision > HEAD_REVISION:
        words = f"has schema {revision}, this Loopscope knows {HEAD_REVISION}; upgrade"
        raise TerminalFailure("NewerDatabase", f"{database.place} {words}")
    if revision < HEAD_REVISION:
        return Finding("SchemaOutdated", database.name, f"it has schema {revision}")
    return None


def _read(state: StateFolder, seen: Comparison) -> _Rows | None:
    problem = database_problem(state)
    if problem is not None:
        seen.findings.append(problem)
        return None
    with state.database.read() as connection:
        return _Rows(
            artifacts={record.digest: record for record in artifact_index.listed(connection)},
            objects=objects.listed(connection),
            active=jobs.listed(connection),
        )


# -- artifacts -------------------------------------------------------------------------------


def _look_at_artifact(
    artifacts: ArtifactStore, thing: Stored, rows: _Rows | None, seen: Comparison, hashing: bool
) -> None:
    stage, digest, size = thing.group, thing.name, thing.bytes
    known = rows.artifacts.get(digest) if rows else None
    subject = f"{stage}/{digest[:12]}"
    try:
        found = artifacts.record(stage, digest)
        (artifacts.verify if hashing else artifacts.check_presence)(found)
        if known is not None and found != known and not was_made_again(known, found):
            raise Differs("its numbers are not those that were recorded")
    except Corrupt as damage:
        repair = partial(_set_aside, stage, digest, str(damage))
        seen.findings.append(Finding("ArtifactCorrupt", subject, str(damage), size, repair))
        return
    seen.whole.append(found)
    repair = partial(_index, found)
    if rows is not None and known is None:
        what = "the database does not know it"
        seen.findings.append(Finding("ArtifactUnindexed", subject, what, size, repair))
    elif known is not None and found != known:
        what = "it was made again since it was recorded"
        seen.findings.append(Finding("ArtifactReplaced", subject, what, size, repair))
    seen.findings.extend(map(_foreign, artifacts.foreign_in(found)))


def _look_for_missing(rows: _Rows, found: set[tuple[str, str]], seen: Comparison) -> None:
    on_disk = {digest for _, digest in found}
    for record in rows.artifacts.values():
        if (record.stage, record.digest) not in found:
            subject = f"{record.stage}/{record.digest[:12]}"
            repair = partial(_forget, record.digest)
            what = "the database knows it, and it is not there"
            seen.findings.append(Finding("ArtifactMissing", subject, what, repair=repair))
    for item in rows.objects:
        artifact = item.status.artifact
        if item.ready and artifact and artifact.digest not in on_disk | rows.artifacts.keys():
            what = f"it is Ready, and {artifact.stage}/{artifact.digest[:12]} does not exist"
            seen.findings.append(Finding("ObjectWithoutArtifact", str(item.key), what))


# -- leftovers -------------------------------------------------------------------------------


def _look_for_leftovers(
    shards: Iterable[Stored], staging: Iterable[Stored], rows: _Rows, seen: Comparison
) -> None:
    active = {job.digest for job in rows.active}
    wanted = {item.wanted_digest for item in rows.objects}
    whole = {record.digest for record in seen.whole}
    attempts = {f"{job.digest}-{job.token}" for job in rows.active if job.state == "running"}
    for thing in shards:
        needed = thing.name in active or (thing.name in wanted and thing.name not in whole)
        if not needed:
            seen.findings.append(_leftover("LeftoverShards", thing))
    for thing in staging:
        if thing.name not in attempts:
            seen.findings.append(_leftover("LeftoverStaging", thing))


def _leftover(problem: str, thing: Stored) -> Finding:
    what = f"{thing.bytes:,} bytes that no job needs"
    return Finding(problem, _shown(thing), what, thing.bytes, partial(_remove, thing))


def _foreign(thing: Stored) -> Finding:
    what = f"{thing.bytes:,} bytes that Loopscope did not write; they do no harm"
    repair = partial(_set_foreign_aside, thing)
    return Finding("ForeignFile", _shown(thing), what, thing.bytes, repair)


def _shown(thing: Stored) -> str:
    """Return a place in one printable line, whatever the name of the file."""
    return "".join(sign if sign.isprintable() else "?" for sign in thing.place)


# -- repairs ---------------------------------------------------------------------------------


def _index(record: ArtifactRecord, state: StateFolder, _now: float) -> None:
    state.artifacts.make_durable(record)
    with state.database.write() as connection:
        artifact_index.record(connection, record)


def _forget(digest: str, state: StateFolder, _now: float) -> None:
    with state.database.write() as connection:
        artifact_index.forget(connection, digest)


def _set_aside(stage: str, digest: str, what: str, state: StateFolder, now: float) -> None:
    with state.database.write() as connection:
        artifact_index.forget(connection, digest)
        state.artifacts.quarantine(stage, digest)
        for key in objects.wanting(connection, digest):
            events.record(connection, key, "Warning", "ArtifactDamaged", what, now=now)


def _set_foreign_aside(thing: Stored, state: StateFolder, _now: float) -> None:
    state.artifacts.set_aside(thing)


def _remove(thing: Stored, state: StateFolder, _now: float) -> None:
    state.artifacts.remove(thing)
