"""Converged families of objects, recognised from a few columns of the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from loopscope.controller.apply.code_identity import code_identity
from loopscope.controller.apply.planned import PlannedStage
from loopscope.specs.actions import CODE_REVISIONS
from loopscope.specs.keys import Key
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db import applied
from loopscope.state.db.connection import Connection
from loopscope.state.db.database import Database

RECONCILED_BY = "reconciled_by"
"""The mark that a controller sets when everything was reconciled by the code that it runs."""


def cached_families(
    connection: Connection, store: ArtifactStore, keys: Iterable[Key]
) -> tuple[dict[Key, list[PlannedStage]], dict[Key, str]]:
    """Return the stages of the objects of ``keys`` that need no work, and all editions seen.

    Such an object is Ready, was reconciled by this very code and rests on no work of older rules,
    and the folders of all artifacts that it rests on are there. Whether their files are whole is
    for the controller to see.
    """
    if not is_reconciled(connection):
        return {}, {}
    ready = applied.ready_roots(connection) - applied.roots_of_older_rules(connection)
    standing = applied.standing(connection)
    work: dict[str, list[applied.WantedWork]] = {}
    for one in applied.wanted_work(connection):
        work.setdefault(one.root, []).append(one)
    published: dict[str, set[str]] = {stage: store.published(stage) for stage in CODE_REVISIONS}
    found: dict[Key, list[PlannedStage]] = {}
    editions: dict[Key, str] = {}
    for key in keys:
        if key not in ready or key not in standing:
            continue
        family = work.get(standing[key].uid, [])
        if all(w.digest is None or w.digest in published[w.key.kind.lower()] for w in family):
            found[key] = [_stage(one, key) for one in family]
            editions[key] = standing[key].edition
            editions.update({one.key: one.edition for one in family})
    return found, editions


def is_reconciled(connection: Connection) -> bool:
    """Whether a controller of this very code has seen everything that was there."""
    return bool(applied.mark(connection, RECONCILED_BY) == code_identity())


@dataclass
class ReconciledMark:
    """Records once that everything was reconciled by the running code."""

    _code: str = field(default_factory=code_identity)
    """The code that this process started with, whatever the files become."""
    _is_set: bool = False

    def set(self, database: Database) -> None:
        """Write the mark, unless it stands there already."""
        if self._is_set:
            return
        with database.read() as connection:
            known = applied.mark(connection, RECONCILED_BY)
        if known != self._code:
            with database.write() as connection:
                applied.set_mark(connection, RECONCILED_BY, self._code)
        self._is_set = True


def _stage(work: applied.WantedWork, root: Key) -> PlannedStage:
    return PlannedStage(work.key, root, "cached" if work.digest else "no work", digest=work.digest)
