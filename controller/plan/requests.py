"""Requests: one ``apply``, ``plan`` or ``diff`` of some paths, from reading to storing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from loopscope.controller.apply.appliers import ANYBODY, BY_ANYBODY, Applier
from loopscope.controller.apply.planned import Applied, Planned, PlannedObject
from loopscope.controller.apply.unchanged import FileMemory, Unchanged
from loopscope.controller.plan.cached import cached_families, is_reconciled
from loopscope.specs.errors import InvalidSpec, Problem
from loopscope.specs.keys import PROTECT_ANNOTATION, Key
from loopscope.specs.yaml.spec_sources import SpecSource, files_of
from loopscope.state.db import applied, objects
from loopscope.state.db.connection import Connection
from loopscope.state.failures import TerminalFailure, TransientFailure
from loopscope.state.folder import StateFolder
from loopscope.state.records import edition_of
from loopscope.state.register import Intentions

if TYPE_CHECKING:
    from loopscope.controller.apply.intents import Intent
    from loopscope.controller.plan.older_rules import OlderWork
    from loopscope.specs.yaml.loading import LoadedObject
    from loopscope.views.forecasts import Forecaster, Known

DISCARD_SECONDS_MAX = 600.0
"""An edit that makes more finished work than this worthless wants a confirmation."""
TRIES_MAX = 5
_MOVED = (
    "its files came, went or moved while they were read, so none can be called gone; apply again"
)


@dataclass(frozen=True)
class Request:
    """What is to be applied, and how."""

    sources: tuple[SpecSource, ...]
    applier: Applier = BY_ANYBODY
    namespace: str | None = None
    """Of objects that name none; those that name another one are refused."""
    prune: bool = False
    allow_empty: bool = False
    confirm: bool = False

    @property
    def named(self) -> str:
        """The paths, as they were given."""
        return ", ".join(str(source.path) for source in self.sources)

    def __post_init__(self) -> None:
        if self.prune and self.applier.manager == ANYBODY:
            raise TerminalFailure(
                "ApplySetNeeded",
                "--prune deletes what an earlier apply of the same set recorded; name the set "
                "with --apply-set NAME, first without --prune",
            )


@dataclass(frozen=True)
class Reading:
    """What was found in the files of a request; unchanged ones were not parsed."""

    request: Request
    memory: FileMemory
    unchanged: Unchanged
    loaded: list[LoadedObject]
    began_at_ns: int

    @property
    def keys(self) -> set[Key]:
        """Every object that a file defines."""
        return {*self.unchanged.objects, *(item.manifest.key for item in self.loaded)}


@dataclass(frozen=True)
class Done:
    """What came of a request."""

    applied: list[Applied]
    removed: list[Key] = field(default_factory=list)
    again: list[OlderWork] = field(default_factory=list)
    """What no longer rests on work of older rules, and is made again."""


def read_files(state: StateFolder | None, request: Request, *, now: float) -> Reading:
    """Read the files of a request that are not as they were when they were last applied.

    Raises InvalidSpec with every problem of every file; then nothing may be stored or pruned.
    """
    roots = files_of(request.sources)
    files = list(roots)
    memory = FileMemory(
        request.sources[0].root,
        request.applier.manager,
        request.namespace,
        {str(file.absolute()): root for file, root in roots.items()},
    )
    if state is None:
        unchanged = Unchanged({}, files)
    else:
        with state.database.read() as connection:
            unchanged = memory.split(connection, files)
    to_read = {file: roots[file] for file in unchanged.to_read}
    loaded, problems = _loaded(to_read, request.namespace)
    known = set(unchanged.objects)
    problems += [
        item.problem("metadata.name", f"{item.manifest.key} is also defined in another file")
        for item in loaded
        if item.manifest.key in known
    ]
    nothing = not problems and not loaded and not known
    if nothing and not (request.prune and request.allow_empty):
        from loopscope.specs.yaml.loading import (
            nothing_found,  # late: what did not change needs no pydantic
        )

        problems.append(nothing_found(request.named, files))
    if not problems and request.prune and list(files_of(request.sources)) != files:
        problems.append(Problem(request.named, 0, 0, "", _MOVED))
    if problems:
        raise InvalidSpec(problems)
    return Reading(request, memory, unchanged, _admitted(loaded), int(now * 1e9))


def fulfil(
    state: StateFolder, reading: Reading, *, now: float, expected: dict[str, str] | None = None
) -> Done:
    """Apply and prune in one transaction. Raises TerminalFailure; then nothing was stored.

    ``expected`` are the editions (by ``kind/namespace/name``) that a plan was made for.
    """
    unchanged = [Applied(key, "unchanged") for key in reading.unchanged.objects]
    if not reading.loaded and not reading.request.prune and _is_of_rules_of_now(state, reading):
        return Done(unchanged)
    from loopscope.controller.plan.applying import prune, store
    from loopscope.controller.plan.older_rules import let_go

    files = reading.memory.look(reading.loaded, reading.began_at_ns)
    for _ in range(TRIES_MAX):
        guarded, older = _guarded(state, reading, now)
        with state.database.write() as connection:
            wanted = _intents(connection, reading)
            editions = _editions(wanted)
            if expected is not None:
                _refuse_unexpected(editions, expected)
            if editions != guarded:
                continue  # edited in between: decide again
            doomed = doomed_by(connection, reading)
            done = store(connection, wanted, now=now)
            again = let_go(connection, older, now=now)
            removed = prune(connection, doomed, now=now)
            reading.memory.remember(connection, files)
        return Done([*done, *unchanged], removed, again)
    raise TransientFailure(
        "Conflict", f"others changed the same objects {TRIES_MAX} times in between; try again"
    )


def refuse_costly(state: StateFolder, reading: Reading, *, now: float) -> None:
    """Refuse what ``fulfil`` would refuse for the finished work it discards; store nothing.

    Raises TerminalFailure.
    """
    _guarded(state, reading, now)


def planned(
    connection: Connection,
    state: StateFolder,
    reading: Reading,
    *,
    now: float,
    forecaster: Callable[[Known], Forecaster] | None = None,
) -> Planned:
    """Return what applying (and pruning) would set in motion; nothing is written."""
    wanted = _intents(connection, reading)
    doomed = doomed_by(connection, reading)
    cached, editions = cached_families(connection, state.artifacts, reading.unchanged.objects)
    unsure = [key for key in reading.unchanged.objects if key not in cached]
    found = Planned((), ())
    if wanted or unsure or doomed:
        from loopscope.controller.plan.planning import plan_apply

        found = plan_apply(
            connection,
            state.artifacts,
            wanted,
            now=now,
            unchanged=unsure,
            prune=doomed,
            forecaster=forecaster,
            intentions=Intentions(state.register),
        )
    reached = {stage.key for stage in found.stages}  # by an edit of what they rest on
    still = [one for family in cached.values() for one in family if one.key not in reached]
    return Planned(
        (*found.objects, *(PlannedObject(key, "unchanged") for key in cached)),
        (*found.stages, *still),
        found.prune,
        {**editions, **found.observed},
    )


def doomed_by(connection: Connection, reading: Reading) -> list[Key]:
    """Return what a request would prune.

    Raises TerminalFailure when something of it is protected, or when nothing would be left.
    """
    request = reading.request
    if not request.prune:
        return []
    keys = reading.keys
    recorded = applied.of_manager(connection, request.applier.manager)
    doomed = [key for key in recorded if key not in keys]
    if doomed and not keys and not request.allow_empty:
        raise TerminalFailure(
            "PruneToZero",
            f"{request.named} holds no object any more: all {len(doomed)} of the apply set would "
            "be deleted; if that is meant: --allow-empty",
        )
    for key in doomed:
        record = objects.get(connection, key)
        if record is not None and record.annotations.get(PROTECT_ANNOTATION) == "true":
            raise objects.Protected(
                "Protected", f'{key} carries {PROTECT_ANNOTATION}: "true"; remove it first'
            )
    return doomed


def guard(planned: Planned, *, confirm: bool, protected: Sequence[Key]) -> None:
    """Refuse an edit that discards much finished work, or any of a protected object.

    Raises TerminalFailure.
    """
    lost = [stage for stage in planned.stages if stage.discards_seconds > 0]
    words = ", ".join(f"{stage.key} {stage.discards_seconds:.0f} s" for stage in lost)
    shielded = sorted({stage.root for stage in lost}.intersection(protected))
    if shielded:
        raise objects.Protected(
            "Protected",
            f'{shielded[0]} carries {PROTECT_ANNOTATION}: "true" and this edit would discard '
            f"finished work ({words}); apply the file without the annotation first",
        )
    if planned.needs_confirmation and not confirm:
        from loopscope.controller.plan.upgrade_words import confirmation_words

        raise TerminalFailure("ConfirmationNeeded", confirmation_words(planned))
    if planned.discards_seconds > DISCARD_SECONDS_MAX and not confirm:
        raise TerminalFailure(
            "ConfirmationNeeded",
            f"nothing would rest on {planned.discards_seconds / 60:.0f} min of finished work any "
            f"more ({words}); look with `loopscope plan`, then apply with --confirm. The "
            "artifacts stay: an edit that is taken back finds them",
        )


# What reads YAML and asks reconcilers takes a second to import: not for files that did not change.


def _loaded(
    roots: dict[Path, Path], namespace: str | None
) -> tuple[list[LoadedObject], list[Problem]]:
    if not roots:
        return [], []
    from loopscope.inputs.datasets import Datasets
    from loopscope.specs.yaml.loading import load_files

    return load_files(roots, namespace, Datasets().find)


def _admitted(loaded: list[LoadedObject]) -> list[LoadedObject]:
    if not loaded:
        return []
    from loopscope.controller.plan.applying import admitted

    return admitted(loaded)


def _intents(connection: Connection, reading: Reading) -> list[Intent]:
    if not reading.loaded:
        return []
    from loopscope.controller.apply.intents import intents

    return intents(connection, reading.loaded, reading.request.applier)


def _guarded(
    state: StateFolder, reading: Reading, now: float
) -> tuple[dict[Key, str], list[OlderWork]]:
    """Return the editions of the objects for which the edit was found harmless, or confirmed.

    And what rests on work of older rules, which is then released.
    """
    from loopscope.controller.plan.older_rules import older_work_of

    with state.database.read() as connection:
        wanted = _intents(connection, reading)
        edits = [i for i in wanted if i.stored is not None and not i.is_same_spec]
        edited = [i.key for i in edits]
        same_spec = [i for i in wanted if i.is_same_spec and not i.stands]
        others = [i.key for i in same_spec if not i.only_protects]
        others += reading.unchanged.objects
        older = older_work_of(connection, state.artifacts, [*edited, *others], edited)
        if edits or older:
            from loopscope.controller.plan.planning import plan_apply

            roots = {one.root for one in older}
            same = [key for key in others if key in roots]
            found = plan_apply(connection, state.artifacts, edits, now=now, unchanged=same)
            kept = [i.key for i in edits if i.stored and _is_protected(i)]
            guard(found, confirm=reading.request.confirm, protected=kept)
    return _editions(wanted), older


def _is_of_rules_of_now(state: StateFolder, reading: Reading) -> bool:
    """Whether a controller of this code saw that no unchanged file's work is of older rules."""
    with state.database.read() as connection:
        if not is_reconciled(connection):
            return False
        return not applied.roots_of_older_rules(connection).intersection(reading.unchanged.objects)


def _refuse_unexpected(editions: dict[Key, str], expected: dict[str, str]) -> None:
    moved = [str(k) for k, edition in editions.items() if expected.get("/".join(k)) != edition]
    if moved:
        raise TerminalFailure(
            "PlanOutdated", f"this changed since the plan was made: {', '.join(moved)}; plan again"
        )


def _is_protected(intent: Intent) -> bool:
    stored = intent.stored
    return stored is not None and stored.annotations.get(PROTECT_ANNOTATION) == "true"


def _editions(wanted: Sequence[Intent]) -> dict[Key, str]:
    """Return each object's edition; it leaves out the status, which controllers write meanwhile."""
    return {i.key: edition_of(i.stored) for i in wanted}
