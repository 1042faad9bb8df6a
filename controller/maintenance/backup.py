"""Backups: a whole state as a folder, taken while others work on it, and back.

``state.snapshot`` is written last and names what belongs to it, so a folder whose backup was cut
off still holds the one before, whole. Artifacts that are there already are not copied again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from loopscope.controller.config import config_beside
from loopscope.controller.maintenance import snapshot as snapshots
from loopscope.controller.maintenance.snapshot import Restored, Snapshot
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.carrying import Carried, carry
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.failures import TerminalFailure
from loopscope.state.files import disk_full_words, durable_replace, is_disk_full
from loopscope.state.folder import BACKUP, StateFolder, artifacts_of, has_database, is_backup
from loopscope.state.moves import note_artifacts_in
from loopscope.state.read_only import look_at
from loopscope.state.records import ArtifactRecord

SNAPSHOT = "state.snapshot"
LIMITS = "limits.conf"
WRITTEN_ONCE = ("ratings", "register")
"""Folders of files that are written once and never changed, neither by us nor by a restore."""
ROUNDS_MAX = 3
"""How often a backup begins again because something was collected while it was copied."""

Report = Callable[[ArtifactRecord], None]


@dataclass(frozen=True)
class BackedUp:
    """What a backup holds, and what it copied."""

    snapshot: Snapshot
    carried: Carried
    files: int
    """Ratings and registrations."""


def back_up(
    state: StateFolder,
    target: Path,
    *,
    now: float,
    lineage: str,
    force: bool,
    report: Report = lambda _: None,
) -> BackedUp:
    """Bring a backup folder up to the state of this moment, also while a controller runs.

    Raises TerminalFailure when the folder holds something else, or a newer backup or that of
    another state unless ``force``, or cannot be written.
    """
    _make(state, target)
    with _alone(target), _in_plain_words(target):
        for left in reversed(range(ROUNDS_MAX)):
            with snapshots.taken(state, now=now, lineage=lineage) as (snapshot, copy):
                if not force:
                    snapshots.refuse_to_replace(target / SNAPSHOT, snapshot, copy)
                records = _records(copy)
                store = artifacts_of(target)
                store.discard_staging(keep_tokens=set())
                carried = carry(state.artifacts, store, records, report)
                if carried.lost and left and not _all_known(state, records):
                    continue  # collected since the copy was made
                files = sum(_keep_files(state.path / n, target / n) for n in WRITTEN_ONCE)
                _keep_limits(config_beside(state.path), target / LIMITS)
                snapshots.write(target / SNAPSHOT, snapshot, copy)
                _drop_unneeded(store, state, {record.digest for record in records})
            return BackedUp(snapshot, carried, files)
    raise AssertionError("the last round returns")


def restore_backup(
    path: Path, source: Path, *, force: bool, report: Report = lambda _: None
) -> tuple[Restored, Carried]:
    """Let the state folder at ``path`` have all that a backup holds; set aside its database.

    Artifacts go to where this folder keeps its own: below it, or into its bucket. What stands there
    is left alone. Killed anywhere, it is repeated. Raises what ``snapshot.restore`` raises, and
    TerminalFailure when a registration or rating would have to be replaced.
    """
    if not (source / SNAPSHOT).exists():
        raise TerminalFailure(
            "SnapshotDamaged",
            f"{source} is a backup that was never whole: it has no {SNAPSHOT}; back up again, or "
            "name another",
        )
    carried: list[Carried] = []

    def bring(copy: Path) -> None:
        for name in WRITTEN_ONCE:
            _refuse_other_files(source / name, path / name)
        records = _records(copy)
        note_artifacts_in(copy, path)
        carried.append(carry(artifacts_of(source), artifacts_of(path), records, report))
        for name in WRITTEN_ONCE:
            _keep_files(source / name, path / name)
        if not config_beside(path).exists():
            _keep_limits(source / LIMITS, config_beside(path))

    with _in_plain_words(path):
        done = snapshots.restore(path, source / SNAPSHOT, force=force, bring=bring)
    return done, carried[0]


def _make(state: StateFolder, target: Path) -> None:
    inside = target.resolve()
    if inside == state.path or inside.is_relative_to(state.path):
        raise TerminalFailure(
            "SnapshotNotWritable",
            f"{target} lies in the state folder; name a folder elsewhere, best on another disk",
        )
    try:
        target.mkdir(mode=0o700, exist_ok=True)
        if not is_backup(target):
            if any(target.iterdir()):
                raise TerminalFailure(
                    "SnapshotNotWritable",
                    f"{target} holds other things than a backup; name a new folder",
                )
            (target / BACKUP).write_text("1\n")
        elif has_database(target):
            raise TerminalFailure(
                "SnapshotNotWritable",
                f"{target} is a backup that was worked in as a state; name a new folder",
            )
    except OSError as error:
        raise _not_writable(target, error) from None


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    lock = FileLock(target / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TerminalFailure(
            "SnapshotNotWritable", f"another backup writes to {target}; wait until it is done"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _in_plain_words(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _not_writable(target, error) from None


def _not_writable(target: Path, error: OSError) -> TerminalFailure:
    what = disk_full_words(target) if is_disk_full(error) else f"{error.strerror or error}"
    return TerminalFailure(
        "SnapshotNotWritable",
        f"{target}: {what}; what was copied stays, and the same command goes on from it",
    )


def _records(copy: Path) -> list[ArtifactRecord]:
    """Return the artifacts that a copied database knows. Reading leaves its bytes as they are."""
    database = look_at(copy.parent).database
    try:
        with database.read() as connection:
            return artifact_index.listed(connection)
    finally:
        database.close()


def _all_known(state: StateFolder, records: list[ArtifactRecord]) -> bool:
    with state.database.read() as connection:
        known = artifact_index.digests(connection)
    return known.issuperset(record.digest for record in records)


def _drop_unneeded(store: ArtifactStore, state: StateFolder, needed: set[str]) -> None:
    """Remove from a backup what this state has no more."""
    unfinished = {thing.name for thing in state.artifacts.contents() if thing.kind == "shards"}
    for thing in list(store.contents()):
        kept = needed if thing.kind == "artifact" else unfinished
        if thing.name not in kept:
            store.remove(thing)


def _keep_files(source: Path, target: Path) -> int:
    """Copy files that the target lacks, in the order of their names; return how many are there."""
    count = 0
    for path in _files(source):
        kept = target / path.relative_to(source)
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(path, kept)
        count += 1
    return count


def _refuse_other_files(source: Path, target: Path) -> None:
    for path in _files(source):
        there = target / path.relative_to(source)
        if there.exists() and there.read_bytes() != path.read_bytes():
            raise TerminalFailure(
                "StateNewer",
                f"{there} is written once and differs from the one in the backup; restore into "
                "another folder (--state)",
            )


def _keep_limits(source: Path, target: Path) -> None:
    if source.is_file():
        _write(source, target)


def _files(folder: Path) -> list[Path]:
    """Return files in the order of their names; what has a hidden name is not finished."""
    found = (path for path in folder.rglob("*.json") if not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def _write(path: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.touch(mode=0o600)
    temporary.write_bytes(path.read_bytes())
    durable_replace(temporary, target)
