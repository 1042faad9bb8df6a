"""Moving of a state: its database between file and server, its artifacts between folder and bucket.

What is moved stays where it was until it stands whole in its new place; then one small file names
that place. So a move that was cut off anywhere is repeated and goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from loopscope.controller.maintenance import snapshot as snapshots
from loopscope.controller.runtime import leadership
from loopscope.state import folder, moves
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.carrying import Carried, carry
from loopscope.state.artifacts.consistency import compare
from loopscope.state.db.database import Database
from loopscope.state.db.dialect.contract import Dialect
from loopscope.state.db.whole_rows import rows_digest
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import StateFolder, open_state
from loopscope.state.records import ArtifactRecord

HARM = ("ArtifactMissing", "ArtifactCorrupt", "ArtifactReplaced")
"""What fsck finds and a move may not leave behind; leftovers are nobody's loss."""

Report = Callable[[ArtifactRecord], None]


@dataclass(frozen=True)
class Moved:
    """What a move did."""

    source: str
    target: str
    is_new: bool = True
    """False if all was there already."""
    objects: int = 0
    left_at: str | None = None
    """Where what was moved still lies."""
    carried: Carried | None = None
    whole: int = 0
    """Artifacts that were found whole in the new place, every byte."""


def move_database(path: Path, url: str | None, *, now: float, lineage: str) -> Moved:
    """Move the database of a state folder to a server, or to a file of the folder (``None``).

    Nobody writes meanwhile. The former one is set aside, never deleted. Raises AnotherController
    while one works, and TerminalFailure where another or a newer state would be lost.
    """
    source, target = folder.database_of(path), folder.database_at(path, url)
    if folder.server_of(path) == url:
        left = moves.set_file_aside(path) if url is not None else None
        return Moved(source.place, target.place, is_new=False, left_at=left)
    target.check_place()
    target.size_bytes()  # a server that lets nobody in is found out before anything is done
    state = open_state(path)
    try:
        snapshots.give_lineage(state, lineage)
        with leadership(state), suppress(_AllDone), state.database.write() as locked:
            state.database.dialect.may_pause(locked)
            with snapshots.taken(state, now=now, lineage=lineage) as (snapshot, copy):
                content = rows_digest(state.database)
                _make_room(target, snapshot.lineage, snapshot.version, content)
                target.restore_from(copy)
            _compare_rows(target, content)
            folder.name_database(path, url)
            left = state.database.dialect.set_aside()
            raise _AllDone
    finally:
        state.database.close()
        target.close()
    return Moved(source.place, target.place, objects=snapshot.objects, left_at=left)


class _AllDone(Exception):
    """Ends a write that wrote nothing without a commit: its tables lie elsewhere by now."""


def move_artifacts(path: Path, url: str | None, report: Report = lambda _: None) -> Moved:
    """Move the artifacts of a state folder into a bucket, or below the folder (``None``).

    Every artifact that the database knows is verified where it is read and again where it was
    written; the former ones stay where they are. Raises AnotherController while one works,
    TerminalFailure when one is damaged, and OSError.
    """
    moving = moves.begin_move(path, url)
    if moving.is_switching:
        moves.switch_artifacts(path, moving)
    state = open_state(path)
    try:
        source = state.artifacts
        if moves.is_there(path, moving):
            moves.end_move(path)
            return Moved(source.place, source.place, is_new=False, whole=_whole(state))
        with leadership(state):
            target = moves.target_of(path, moving)
            with state.database.read() as connection:
                records = artifact_index.listed(connection)
            carried = carry(source, target, records, report)
            if carried.lost:
                raise TerminalFailure(
                    "ArtifactDamaged",
                    f"{carried.lost[0]}; nothing was switched. `loopscope fsck --repair` sets "
                    "aside what is damaged, then the same command goes on",
                )
            moves.switch_artifacts(path, moving)
    finally:
        state.database.close()
    state = open_state(path)
    try:
        return Moved(source.place, target.place, carried=carried, left_at=source.place,
                     whole=_whole(state))  # fmt: skip
    finally:
        state.database.close()


def _whole(state: StateFolder) -> int:
    """Return how many artifacts are whole, every byte read. Raises TerminalFailure otherwise."""
    seen = compare(state)
    harm = [found for found in seen.findings if found.problem in HARM]
    if harm:
        first = harm[0]
        raise TerminalFailure(
            "ArtifactDamaged",
            f"{first.subject}: {first.what}; `loopscope fsck` lists all of them. What was moved "
            "lies where it was",
        )
    return len(seen.whole)


def _make_room(target: Dialect, lineage: str, version: int, content: str) -> None:
    """Set aside what an earlier move of this state left in the target. Raises TerminalFailure."""
    if not target.size_bytes():
        return
    database = Database(target)
    try:
        there = snapshots.standing_of(database)
        if there is not None:
            is_older = there[0] == lineage and (
                there[1] < version or (there[1] == version and rows_digest(database) == content)
            )
            if not is_older:
                raise TerminalFailure(
                    "StateNewer",
                    f"{target.place} holds another or a newer state; name another place "
                    "(?schema=name for a schema of its own)",
                )
    finally:
        database.close()
    target.set_aside()


def _compare_rows(target: Dialect, content: str) -> None:
    database = Database(target)
    try:
        found = rows_digest(database)
    finally:
        database.close()
    if found != content:
        raise TerminalFailure(
            "DatabaseDamaged",
            f"{target.place} does not hold what was written to it; nothing was switched",
        )
