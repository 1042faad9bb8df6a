"""Comparison of the database with the artifact folders, both ways, and its repairs.

``compare`` reads only. Each finding carries what would mend it, if the state folder alone has
what that takes.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.store import (
    MANIFEST,
    ArtifactStore,
    Corrupt,
    Differs,
    was_made_again,
)
from loopscope.state.artifacts.trash import Trash
from loopscope.state.db import events, jobs, objects
from loopscope.state.db.database import HEAD_REVISION, schema_revision
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import StateFolder
from loopscope.state.records import ArtifactRecord, JobHead, ObjectRecord

Mend = Callable[[StateFolder, float], None]
"""Mends one finding, at a time in Unix seconds. Doing it twice is harmless."""

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
_OWN_FOLDERS = (".staging", ".work", ".quarantine", ".trash")


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    problem: str
    """A key of ``ADVICE``."""
    subject: str
    what: str
    bytes: int = 0
    """What it takes on the disk."""
    mend: Mend | None = field(default=None, repr=False, compare=False)


@dataclass
class Comparison:
    """What a look at a state folder found."""

    findings: list[Finding] = field(default_factory=list)
    whole: list[ArtifactRecord] = field(default_factory=list)
    quarantined: int = 0
    quarantined_bytes: int = 0
    trashed: int = 0
    trashed_bytes: int = 0


@dataclass(frozen=True)
class _Rows:
    """What the database says, read in one transaction."""

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
    artifacts = state.artifacts
    found = set()
    for stage, digest in _artifact_places(artifacts, seen):
        found.add((stage, digest))
        _look_at_artifact(artifacts, stage, digest, rows, seen, hashing)
    if rows is not None:
        _look_for_missing(rows, found, seen)
        _look_for_leftovers(artifacts, rows, seen)
    aside = [p for s in _entries(artifacts.root / ".quarantine") for p in _entries(s)]
    seen.quarantined, seen.quarantined_bytes = len(aside), sum(map(bytes_below, aside))
    thrown = [entry.path for entry in Trash(artifacts.root).entries()]
    seen.trashed, seen.trashed_bytes = len(thrown), sum(map(bytes_below, thrown))
    return seen


def bytes_below(path: Path) -> int:
    """Return the size of a file, or of all files below a folder; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(bytes_below(entry) for entry in path.iterdir())


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
        return Finding("DatabaseDamaged", database.name, "SQLite cannot read it", size)
    if complaints:
        what = f"{len(complaints)} complaints of SQLite, the first: {complaints[0]}"
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


def _artifact_places(artifacts: ArtifactStore, seen: Comparison) -> Iterator[tuple[str, str]]:
    """Yield what lies where an artifact may lie; what lies elsewhere is foreign."""
    for entry in _entries(artifacts.root):
        if entry.name in _OWN_FOLDERS:
            continue
        if entry.name not in CODE_REVISIONS or not entry.is_dir():
            seen.findings.append(_foreign(artifacts, entry))
            continue
        for place in _entries(entry):
            if _DIGEST.fullmatch(place.name):
                yield entry.name, place.name
            else:
                seen.findings.append(_foreign(artifacts, place))


def _look_at_artifact(
    artifacts: ArtifactStore,
    stage: str,
    digest: str,
    rows: _Rows | None,
    seen: Comparison,
    hashing: bool,
) -> None:
    known = rows.artifacts.get(digest) if rows else None
    subject = f"{stage}/{digest[:12]}"
    size = bytes_below(artifacts.folder(stage, digest))
    try:
        found = artifacts.record(stage, digest)
        (artifacts.verify if hashing else artifacts.check_presence)(found)
        if known is not None and found != known and not was_made_again(known, found):
            raise Differs("its numbers are not those that were recorded")
    except Corrupt as damage:
        mend = partial(_set_aside, stage, digest, str(damage))
        seen.findings.append(Finding("ArtifactCorrupt", subject, str(damage), size, mend))
        return
    seen.whole.append(found)
    mend = partial(_index, found)
    if rows is not None and known is None:
        what = "the database does not know it"
        seen.findings.append(Finding("ArtifactUnindexed", subject, what, size, mend))
    elif known is not None and found != known:
        what = "it was made again since it was recorded"
        seen.findings.append(Finding("ArtifactReplaced", subject, what, size, mend))
    folder = artifacts.folder(stage, digest)
    for path in _files_below(folder):
        if path.relative_to(folder).as_posix() not in {MANIFEST, *found.files}:
            seen.findings.append(_foreign(artifacts, path))


def _look_for_missing(rows: _Rows, found: set[tuple[str, str]], seen: Comparison) -> None:
    on_disk = {digest for _, digest in found}
    for record in rows.artifacts.values():
        if (record.stage, record.digest) not in found:
            subject = f"{record.stage}/{record.digest[:12]}"
            mend = partial(_forget, record.digest)
            what = "the database knows it, and there is no folder"
            seen.findings.append(Finding("ArtifactMissing", subject, what, mend=mend))
    for item in rows.objects:
        artifact = item.status.artifact
        if item.ready and artifact and artifact.digest not in on_disk | rows.artifacts.keys():
            what = f"it is Ready, and {artifact.stage}/{artifact.digest[:12]} does not exist"
            seen.findings.append(Finding("ObjectWithoutArtifact", str(item.key), what))


# -- leftovers -------------------------------------------------------------------------------


def _look_for_leftovers(artifacts: ArtifactStore, rows: _Rows, seen: Comparison) -> None:
    active = {job.digest for job in rows.active}
    wanted = {item.wanted_digest for item in rows.objects}
    whole = {record.digest for record in seen.whole}
    attempts = {f"{job.digest}-{job.token}" for job in rows.active if job.state == "running"}
    for folder in _entries(artifacts.root / ".work"):
        needed = folder.name in active or (folder.name in wanted and folder.name not in whole)
        if not needed:
            seen.findings.append(_leftover("LeftoverShards", artifacts, folder))
    for folder in _entries(artifacts.root / ".staging"):
        if folder.name not in attempts:
            seen.findings.append(_leftover("LeftoverStaging", artifacts, folder))


def _leftover(problem: str, artifacts: ArtifactStore, path: Path) -> Finding:
    size = bytes_below(path)
    name = _shown(artifacts, path)
    return Finding(problem, name, f"{size:,} bytes that no job needs", size, partial(_remove, path))


def _foreign(artifacts: ArtifactStore, path: Path) -> Finding:
    size = bytes_below(path)
    name = _shown(artifacts, path)
    what = f"{size:,} bytes that Loopscope did not write; they do no harm"
    return Finding("ForeignFile", name, what, size, partial(_set_foreign_aside, path))


def _shown(artifacts: ArtifactStore, path: Path) -> str:
    """Return a path in one printable line, whatever somebody called the file."""
    name = path.relative_to(artifacts.root).as_posix()
    return "".join(sign if sign.isprintable() else "?" for sign in name)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _files_below(folder: Path) -> Iterator[Path]:
    for path in _entries(folder):
        if path.is_dir() and not path.is_symlink():
            yield from _files_below(path)
        else:
            yield path


# -- mending ---------------------------------------------------------------------------------


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


def _set_foreign_aside(path: Path, state: StateFolder, _now: float) -> None:
    aside = state.artifacts.root / ".quarantine" / "foreign"
    aside.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        names = (aside / f"{path.name}-{n}" for n in range(10_000))
        path.rename(next(name for name in names if not os.path.lexists(name)))


def _remove(path: Path, _state: StateFolder, _now: float) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
