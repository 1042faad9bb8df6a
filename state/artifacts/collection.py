"""Collection of unneeded artifacts: found without changing anything, then moved to the trash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.reachability import Reachability, waited_for
from loopscope.state.artifacts.store import Corrupt, Stored
from loopscope.state.db.connection import Connection, check_open
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


@dataclass
class Stock:
    """What a look at the artifacts found, in bytes and pieces."""

    unneeded: list[Stored] = field(default_factory=list)
    """Old enough to be collected."""
    in_grace: list[Stored] = field(default_factory=list)
    """Unneeded, but not for long enough."""
    needed: int = 0
    needed_bytes: int = 0
    trash: list[Stored] = field(default_factory=list)
    trash_bytes: int = 0


Since = Callable[[Stored], float]
"""When something unneeded became so, as far as that is known."""


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
    for thing in _dated(state):
        if thing.kind == "trash":
            stock.trash.append(thing)
            stock.trash_bytes += thing.bytes
        elif not _is_needed(thing, reachable, waited):
            _sort(stock, thing, policy, now, since)
        elif thing.kind == "artifact":
            stock.needed += 1
            stock.needed_bytes += thing.bytes
    return stock


def collect(
    state: StateFolder, reachability: Reachability, things: Sequence[Stored], now: float
) -> list[Stored]:
    """Move to the trash what is still unneeded; return what was moved.

    Whether it is needed is checked again in the transaction that forgets it, so that no object
    comes to rest on an artifact that is being removed. Killed anywhere, what was moved is in the
    trash, and the next call forgets what the database still knows.
    """
    gone: list[Stored] = []
    for batch in (things[start : start + BATCH] for start in range(0, len(things), BATCH)):
        with state.database.write() as connection:
            reachable, waited = reachability.reachable(connection), waited_for(connection)
            moved = [thing for thing in batch if not _is_needed(thing, reachable, waited)]
            for thing in moved:
                check_open(connection)
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
        for artifact in lost:  # looked at again: it may have been made meanwhile
            if artifact.digest not in reachable and _is_missing(state, artifact):
                artifact_index.forget(connection, artifact.digest)


def _is_needed(thing: Stored, reachable: set[str], waited: set[str]) -> bool:
    match thing.kind:
        case "artifact":
            return thing.name in reachable
        case "shards":
            return thing.name in waited
        case "quarantine" | "trash":
            return False
        case "staging" | "foreign":  # left to a resync and to fsck
            return True


def _is_missing(state: StateFolder, artifact: ArtifactRecord) -> bool:
    return not state.artifacts.holds(artifact.stage, artifact.digest)


def _move(connection: Connection, state: StateFolder, thing: Stored, now: float) -> None:
    if thing.kind == "artifact":
        artifact_index.forget(connection, thing.name)
    state.artifacts.throw_away(thing, now=now)


def _sort(stock: Stock, thing: Stored, policy: RetentionPolicy, now: float, since: Since) -> None:
    old = since(thing) <= now - policy.grace_seconds
    (stock.unneeded if old else stock.in_grace).append(thing)


def _dated(state: StateFolder) -> Iterator[Stored]:
    """Yield what the store holds; an artifact since it was made, if its manifest records that."""
    with state.database.read() as connection:
        known = {artifact.digest: artifact for artifact in artifact_index.listed(connection)}
    for thing in state.artifacts.contents():
        if thing.kind != "artifact":
            yield thing
            continue
        with suppress(Corrupt):
            made = known.get(thing.name) or state.artifacts.record(thing.group, thing.name)
            thing = replace(thing, since=made.created_at)  # noqa: PLW2901
        yield thing
