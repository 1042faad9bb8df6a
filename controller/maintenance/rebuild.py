"""Rebuild of the database from what survives it: spec files and artifact folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from loopscope.controller.plan.applying import Applied, apply_all
from loopscope.controller.runtime import leadership
from loopscope.specs.revisions import newer_rules, revisions_of
from loopscope.specs.yaml.loading import LoadedObject
from loopscope.state.artifacts.consistency import (
    DATABASE_PROBLEMS,
    Finding,
    compare,
    database_problem,
)
from loopscope.state.artifacts.store import ArtifactStore, Corrupt
from loopscope.state.db import objects
from loopscope.state.db.database import Database
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import StateFolder, open_state
from loopscope.state.read_only import look_at
from loopscope.state.records import ArtifactRecord


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did."""

    set_aside: str | None
    """Where the old database lies now; None when there was none."""
    applied: list[Applied]
    taken_over: int
    """Artifacts that the new database knows."""
    damaged: list[Finding]
    """Artifacts that were set aside because they are not whole."""
    older: list[str]
    """By which older rules whole artifacts were made, in words. Which objects rested on them was
    recorded in the old database alone, so such work is made again where it is needed."""


def rebuild(path: Path, loaded: list[LoadedObject], *, now: float, healthy_too: bool) -> Rebuilt:
    """Make the database of a state folder again: index the whole artifacts, apply the specs.

    A database that is damaged is set aside, never deleted; a healthy one with objects only if
    ``healthy_too``, else TerminalFailure (DatabaseHealthy). Killed half-way, it is called again.
    Raises AnotherController while one works there.
    """
    state = look_at(path)
    state.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    with leadership(state):
        if not healthy_too:
            _refuse_healthy(state)
        state.database.close()
        aside = state.database.dialect.set_aside()
        new = open_state(path)
        damaged, whole = _index_artifacts(new, now)
        older = _older_rules(new.artifacts, whole)
        applied = apply_all(new, loaded, now=now)  # last: with objects, the work is done
        new.database.close()
    return Rebuilt(aside, applied, len(whole), damaged, older)


def _refuse_healthy(state: StateFolder) -> None:
    problem = database_problem(state)
    if problem is not None and problem.problem != "SchemaOutdated":
        return
    count = "its" if problem else _objects_in(state.database)
    if count:
        raise TerminalFailure(
            "DatabaseHealthy",
            f"{state.database.dialect.place} is whole and holds {count} objects, with their "
            "history; `loopscope fsck` compares it with the artifacts. To set it aside all the "
            "same, add --replace-healthy",
        )


def _objects_in(database: Database) -> int:
    with database.read() as connection:
        return len(objects.listed(connection))


def _index_artifacts(state: StateFolder, now: float) -> tuple[list[Finding], list[ArtifactRecord]]:
    seen = compare(state)
    assert not [f for f in seen.findings if f.problem in DATABASE_PROBLEMS]  # it is new
    damaged = []
    for finding in seen.findings:
        if finding.problem in ("ArtifactUnindexed", "ArtifactCorrupt"):
            assert finding.repair is not None  # both can be repaired
            finding.repair(state, now)
        if finding.problem == "ArtifactCorrupt":
            damaged.append(finding)
    return damaged, seen.whole


def _older_rules(store: ArtifactStore, whole: Iterable[ArtifactRecord]) -> list[str]:
    found: set[str] = set()
    for artifact in whole:
        try:
            made_by = revisions_of(store.manifest(artifact.stage, artifact.digest))
        except (Corrupt, OSError):
            continue  # it was whole a moment ago; the stage that needs it will find the damage
        found.update(newer_rules(made_by))
    return sorted(found)
