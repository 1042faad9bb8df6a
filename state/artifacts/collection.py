"""Collection of unneeded artifacts: found without changing anything, then moved to the trash."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.consistency import bytes_below
from loopscope.state.artifacts.reachability import Reachability, waited_for
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.artifacts.trash import Trash, TrashEntry
from loopscope.state.folder import StateFolder
from loopscope.state.records import ArtifactRecord

BATCH = 32
"""How many things are collected in one transaction: reachability is looked at once for each."""
DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class RetentionPolicy:
    """What is kept although nothing needs it."""

    keep_last: int = 0
    """Newest artifacts kept for each object that exists; what is needed stays anyway."""
    grace_seconds: float = 7 * DAY_SECONDS
    """How long something must have been unneeded."""
    trash_seconds: float = 7 * DAY_SECONDS
    """How long the trash is kept."""


@dataclass(frozen=True)
class Unneeded:
    """Something that nothing needs. ``since`` is when it was last touched (Unix seconds)."""

    kind: Literal["artifact", "shards", "quarantine"]
    group: str
    """Stage of an artifact; folder below the quarantine."""
    name: str
    path: Path
    bytes: int
    since: float


@dataclass
class Stock:
    """What a look at the artifacts found, in bytes and pieces."""

    unneeded: list[Unneeded] = field(default_factory=list)
    """Old enough to be collected."""
    in_grace: list[Unneeded] = field(default_factory=list)
    """Unneeded, but not for long enough."""
    needed: int = 0
    needed_bytes: int = 0
    trash: list[TrashEntry] = field(default_factory=list)
    trash_bytes: int = 0


Since = Callable[[Unneeded], float]
"""When something that is unneeded became so, as far as somebody knows."""


def take_stock(
    state: StateFolder,
    reachability: Reachability,
    policy: RetentionPolicy,
    now: float,
    since: Since = lambda thing: thing.since,
) -> Stock:
    """Return what could be collected now. Changes nothing. Raises OSError."""
    with state.database.read() as connection:
        reachable = reachability.reachable(connection)
        waited = waited_for(connection)
    stock = Stock()
    for thing in (*_artifacts(state), *_shards(state), *_quarantined(state)):
        if not _is_needed(thing, reachable, waited):
            _sort(stock, thing, policy, now, since)
        elif thing.kind == "artifact":
            stock.needed += 1
            stock.needed_bytes += thing.bytes
    stock.trash = list(Trash(state.artifacts.root).entries())
    stock.trash_bytes = sum(_size(entry.path) for entry in stock.trash)
    return stock


def collect(
    state: StateFolder, reachability: Reachability, things: Sequence[Unneeded], now: float
) -> list[Unneeded]:
    """Move to the trash what is still unneeded; return what was moved.

    Whether it is needed is looked at again in the transaction that forgets it, so nobody comes to
    rest on an artifact that is on its way out. Killed anywhere, what was moved is in the trash, and
    the next call forgets what the database still knows.
    """
    gone: list[Unneeded] = []
    for batch in (things[start : start + BATCH] for start in range(0, len(things), BATCH)):
        with state.database.write() as connection:
            reachable, waited = reachability.reachable(connection), waited_for(connection)
            moved = [thing for thing in batch if not _is_needed(thing, reachable, waited)]
            for thing in moved:
                _move(connection, state, thing, now)
        gone.extend(moved)
    return gone


def forget_missing(state: StateFolder, reachability: Reachability) -> None:
    """Forget artifacts that the database knows, that have no folder and that nothing needs."""
    with state.database.read() as connection:
        known = artifact_index.listed(connection)
    lost = [artifact for artifact in known if _is_missing(state, artifact)]
    if not lost:
        return
    with state.database.write() as connection:
        reachable = reachability.reachable(connection)
        for artifact in lost:  # looked at again: somebody may have made it meanwhile
            if artifact.digest not in reachable and _is_missing(state, artifact):
                artifact_index.forget(connection, artifact.digest)


def _is_needed(thing: Unneeded, reachable: set[str], waited: set[str]) -> bool:
    match thing.kind:
        case "artifact":
            return thing.name in reachable
        case "shards":
            return thing.name in waited
        case "quarantine":
            return False


def _is_missing(state: StateFolder, artifact: ArtifactRecord) -> bool:
    return not state.artifacts.folder(artifact.stage, artifact.digest).exists()


def _move(connection: Connection, state: StateFolder, thing: Unneeded, now: float) -> None:
    trash = Trash(state.artifacts.root)
    if thing.kind == "artifact":
        artifact_index.forget(connection, thing.name)
        trash.put(thing.path, thing.group, thing.name, now=now)
    else:
        trash.put(thing.path, thing.kind, f"{thing.group}-{thing.name}".strip("-"), now=now)


def _sort(stock: Stock, thing: Unneeded, policy: RetentionPolicy, now: float, since: Since) -> None:
    old = since(thing) <= now - policy.grace_seconds
    (stock.unneeded if old else stock.in_grace).append(thing)


def _artifacts(state: StateFolder) -> Iterator[Unneeded]:
    with state.database.read() as connection:
        known = {artifact.digest: artifact for artifact in artifact_index.listed(connection)}
    for stage in CODE_REVISIONS:
        for path in _entries(state.artifacts.root / stage):
            record = known.get(path.name)
            try:
                record = record or state.artifacts.record(stage, path.name)
                since = record.created_at
            except Corrupt:
                since = path.lstat().st_mtime
            yield Unneeded("artifact", stage, path.name, path, _size(path), since)


def _shards(state: StateFolder) -> Iterator[Unneeded]:
    for path in _entries(state.artifacts.root / ".work"):
        yield Unneeded("shards", "", path.name, path, _size(path), path.lstat().st_mtime)


def _quarantined(state: StateFolder) -> Iterator[Unneeded]:
    for group in _entries(state.artifacts.root / ".quarantine"):
        for path in _entries(group):
            # a rename leaves the modification time and sets the other
            since = path.lstat().st_ctime
            yield Unneeded("quarantine", group.name, path.name, path, _size(path), since)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size(path: Path) -> int:
    """Return the bytes below a path, 0 when it vanishes meanwhile."""
    try:
        return bytes_below(path) if os.path.lexists(path) else 0
    except FileNotFoundError:
        return 0
