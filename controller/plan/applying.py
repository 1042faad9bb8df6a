"""Apply: load YAML files, admit and store their objects, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loopscope.controller.apply.admission import check_inputs
from loopscope.controller.apply.appliers import BY_ANYBODY, Applier
from loopscope.controller.apply.intents import Intent, intents
from loopscope.controller.apply.planned import Applied
from loopscope.controller.apply.questions import refuse_too_many
from loopscope.controller.apply.unchanged import FileMemory
from loopscope.controller.plan.planning import plan_apply
from loopscope.controller.plan.upgrade_words import confirmation_words
from loopscope.inputs.datasets import Datasets
from loopscope.inputs.files import HashMemo
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.files import DatasetReader
from loopscope.specs.keys import Key
from loopscope.specs.yaml.loading import LoadedObject, load_path
from loopscope.state import failpoints
from loopscope.state.db import applied, objects
from loopscope.state.db.connection import Connection
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import StateFolder

__all__ = ["Applied", "admitted", "apply_all", "load_admitted", "prune", "store"]


def load_admitted(
    path: Path, root: Path, datasets: DatasetReader | None = None
) -> list[LoadedObject]:
    """Load what ``path`` holds and check the inputs that it names.

    Data sets of the hub are downloaded, unless ``datasets`` has another way. Raises InvalidSpec
    with every problem found; then nothing may be stored.
    """
    return admitted(load_path(path, root, datasets or Datasets().find))


def admitted(loaded: list[LoadedObject]) -> list[LoadedObject]:
    """Return what was loaded once its inputs were checked. Raises InvalidSpec."""
    memo = HashMemo()
    problems = [
        item.problem(field, message)
        for item in loaded
        for field, message in check_inputs(item.manifest.kind, item.manifest.canonical_spec(), memo)
    ]
    if problems:
        raise InvalidSpec(problems)
    return loaded


def apply_all(
    state: StateFolder,
    loaded: Sequence[LoadedObject],
    *,
    now: float,
    applier: Applier = BY_ANYBODY,
    memory: FileMemory | None = None,
) -> list[Applied]:
    """Store all objects in one transaction, and in ``memory`` that their files were read.

    Raises TerminalFailure (Conflict, or ConfirmationNeeded where not an edit of the files but a
    changed default of Loopscope would discard finished work).
    """
    with state.database.read() as connection:
        _refuse_new_defaults(connection, state, intents(connection, loaded, applier), now)
    files = memory.look(loaded, int(now * 1e9)) if memory is not None else []
    with state.database.write() as connection:
        done = store(connection, intents(connection, loaded, applier), now=now)
        if memory is not None:
            memory.remember(connection, files)
    return done


def _refuse_new_defaults(
    connection: Connection, state: StateFolder, wanted: Sequence[Intent], now: float
) -> None:
    found = [i for i in wanted if i.stored and any(change.is_default for change in i.changes)]
    if not found:
        return
    planned = plan_apply(connection, state.artifacts, found, now=now)
    if planned.of_older_defaults:
        raise TerminalFailure("ConfirmationNeeded", confirmation_words(planned))


def store(connection: Connection, wanted: Sequence[Intent], *, now: float) -> list[Applied]:
    """Write what was intended; call in the transaction in which it was decided.

    Raises TerminalFailure ``TooManyQuestions``.
    """
    refuse_too_many(connection, wanted)
    done = []
    for intent in wanted:
        if intent.stands:
            done.append(Applied(intent.key, "unchanged"))
            continue
        outcome = objects.apply(
            connection,
            intent.key,
            intent.spec,
            now=now,
            labels=intent.labels,
            annotations=intent.annotations,
        )
        stored = intent.stored or objects.get(connection, intent.key)
        applied.record(connection, replace(intent, stored=stored).record)
        done.append(Applied(intent.key, outcome))
    return done


def prune(connection: Connection, doomed: Sequence[Key], *, now: float) -> list[Key]:
    """Delete objects and what they own; return the deleted keys. Raises Protected."""
    removed = []
    for key in doomed:
        failpoints.reach("object-prune")
        removed.extend(objects.remove(connection, key, now=now))
    return removed
