"""A folder of specs as the source of truth: edits are applied, vanished files pruned.

A disk that is not mounted looks like an empty folder, and a file that is being saved like an
empty file. So what became empty as a whole is never taken as "delete this": an object goes
when its file still holds others, or when its file is gone and the folder still holds others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import structlog

from loopscope.controller.apply.appliers import Applier, folder_manager
from loopscope.controller.apply.unchanged import FileMemory, named_by
from loopscope.controller.clock import Clock, SystemClock, Turns
from loopscope.controller.plan.applying import Applied, apply_all, load_admitted
from loopscope.controller.sources.datasets_beside import DatasetsBeside
from loopscope.controller.sources.folder_files import (
    ChangedPaths,
    FileContent,
    Files,
    folders_of_weights,
    still_known,
)
from loopscope.controller.sources.folder_watch import FolderWatch
from loopscope.controller.sources.second_definitions import (
    DefinedTwice,
    OwnerUnread,
    Unread,
    refuse_second_definitions,
)
from loopscope.controller.sources.source_problems import mark_sources
from loopscope.specs.errors import InvalidSpec, Problem
from loopscope.specs.files import DatasetReader
from loopscope.specs.keys import PROTECT_ANNOTATION, SOURCE_ANNOTATION, Key
from loopscope.specs.yaml.spec_files import files_below
from loopscope.state import failpoints
from loopscope.state.db import events, objects
from loopscope.state.db.connection import Connection
from loopscope.state.failures import PASSING, TerminalFailure
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord

log = structlog.get_logger("folder")

RESCAN_SECONDS = 30.0
RESCAN_SHARE, RESCAN_PAUSE_SECONDS_MAX = 0.005, 600.0
"""Comparing very many files comes so rarely that it takes this much of a core; no rarer."""

SECOND_LOOK_SECONDS = 1.0
"""Nothing is deleted that is missing for a shorter time: a file that is moved seems to be gone."""


@dataclass
class FolderSource:
    """Applies what lies under ``folder`` whenever it changes, and every 30 seconds anyway.

    ``folder`` is an absolute path in which links stay links: deployments swap them. ``find_root``
    finds the root again when it leads elsewhere.
    """

    state: StateFolder
    folder: Path
    root: Path
    wake: Callable[[], None]
    clock: Clock = field(default_factory=SystemClock)
    find_root: Callable[[], Path] | None = None
    problems: list[Problem] = field(default_factory=list)
    kept: set[Key] = field(default_factory=set)
    """Objects without a file that were not deleted, because more than their file vanished."""
    datasets: DatasetReader | None = None
    """How files of hub data sets are come by; left out, beside the loop."""
    _changed: ChangedPaths = field(default_factory=ChangedPaths)
    _files: Files = field(default_factory=dict)
    _inside: FolderWatch = field(init=False)
    _outside: FolderWatch = field(init=False)
    _real: str = ""
    """Where ``folder`` led at the last look."""
    _missed_since: dict[Key, float] = field(default_factory=dict)
    """Objects that are in no file any more, and when that was first seen (``Clock.elapsed``)."""
    _rescans: Turns = field(init=False)

    def __post_init__(self) -> None:
        self.datasets = self.datasets or DatasetsBeside(lambda: self._notice(None)).find
        share, at_most = RESCAN_SHARE, RESCAN_PAUSE_SECONDS_MAX
        self._rescans = Turns(self.clock, RESCAN_SECONDS, share, at_most)
        self._inside = FolderWatch(self._notice, self.state.path, recursive=True)
        self._outside = FolderWatch(self._notice, self.state.path, recursive=False)

    def _notice(self, paths: set[Path] | None) -> None:
        self._changed.add(paths)
        self.wake()

    def start(self) -> None:
        """Watch the root in a thread, and in another what specs name outside of it."""
        self._follow()
        self._inside.start()
        self._outside.start()

    def stop(self) -> None:
        """End the watching threads."""
        self._inside.stop()
        self._outside.stop()

    def scan_if_due(self) -> list[Applied]:
        """Apply what changed, and when the rescan is due whatever differs.

        A scan that fails for a cause that may pass is made again a second later.
        """
        rescan = self._rescans.due
        if not self._changed and not rescan:
            return []
        noticed = self._changed.take()
        try:
            if noticed is not None and not rescan:
                return self._scan(self.clock.now(), noticed)
            with self._rescans.turn():
                return self._scan(self.clock.now(), None)
        except PASSING as trouble:
            log.error("cannot apply the folder now; trying again", trouble=str(trouble))
            self._rescans.soon()
            return []

    def _scan(self, now: float, changed: set[Path] | None) -> list[Applied]:
        if not self.folder.is_dir():
            log.warning("folder is gone; keeping what was applied", folder=str(self.folder))
            return []
        try:
            found = files_below(self.folder)
        except OSError as error:
            log.warning("folder cannot be read; keeping what was applied", error=str(error))
            return []
        files, problems = found.files, list(found.problems)
        if self._follow():
            changed = None
        memory = FileMemory(self.root, self._applier.manager)
        standing = None
        if changed is not None:
            standing = still_known(files, self._files, {self._as_listed(path) for path in changed})
        known = dict(self._compared(files, memory) if standing is None else standing)
        applied: list[Applied] = []
        twice: dict[Key, Problem] = {}
        later: list[Path] = []
        to_read = [file for file in files if file not in known]
        unread: dict[Path, frozenset[Key] | None] = dict.fromkeys(to_read)
        for number, file in enumerate(chain(to_read, later)):
            try:
                done, known[file] = self._apply(file, known, unread, memory, now)
                applied.extend(done)
                del unread[file]
            except InvalidSpec as invalid:
                if isinstance(invalid, OwnerUnread) and number < len(to_read):
                    later.append(file)  # its owner may define it no more: then it moved
                    unread[file] = invalid.keys
                    continue
                problems.extend(invalid.problems)
                twice |= invalid.by_key if isinstance(invalid, DefinedTwice) else {}
            except TerminalFailure as refused:
                problems.append(Problem(str(file), 0, 0, "", refused.message))
        weights = folders_of_weights(known)
        self._outside.watch({path for path in weights if not path.is_relative_to(self.root)})
        before, self._files = self._files, known
        differs = standing is None or bool(problems or self.problems)
        self._report(problems, twice, now)
        if differs:
            mark_sources(self.state, problems, twice)
        seen = {key: file for file, content in known.items() for key in content.keys}
        gone = any(key not in seen for content in before.values() for key in content.keys)
        if problems or not seen:
            self._missed_since = {}
        elif differs or gone:
            self._prune(seen, now)
        return [item for item in applied if item.outcome != "unchanged"]

    def _follow(self) -> bool:
        """Look where the folder's path leads; return whether that is elsewhere than before."""
        real, before = os.path.realpath(self.folder), self._real
        if real == before:
            return False
        self._real = real
        if before and self.find_root is not None:
            self.root = self.find_root()
        self._inside.watch({self.root})
        return bool(before)

    def _as_listed(self, changed: Path) -> Path:
        """Return the path under which a changed file is listed: it is noticed where it is."""
        real = Path(self._real)
        return self.folder / changed.relative_to(real) if changed.is_relative_to(real) else changed

    @property
    def _applier(self) -> Applier:
        return Applier(folder_manager(self.folder))

    def _compared(self, files: list[Path], memory: FileMemory) -> Files:
        """Return the files whose bytes are as they were when they were last applied."""
        with self.state.database.read() as connection:
            found = memory.split(connection, files)
        return {file: FileContent(found.keys[file], found.named[file]) for file in found.keys}

    def _apply(
        self, file: Path, known: Files, unread: Unread, memory: FileMemory, now: float
    ) -> tuple[list[Applied], FileContent]:
        loaded = load_admitted(file, self.root, self.datasets)
        with self.state.database.read() as connection:
            refuse_second_definitions(connection, loaded, known, unread)
        done = apply_all(self.state, loaded, now=now, applier=self._applier, memory=memory)
        named = {pair for item in loaded for pair in named_by(item)}
        keys = tuple(item.manifest.key for item in loaded)
        return done, FileContent(keys, tuple(sorted(named)))

    def _report(self, problems: list[Problem], twice: dict[Key, Problem], now: float) -> None:
        """Log new problems, and put each on the objects that it is about.

        Those that its file last defined, and those that it defines although another file does.
        """
        for problem in problems:
            if problem in self.problems:
                continue
            source = str(Path(problem.file).absolute())
            log.error("not applied; the last good version stands", problem=str(problem))
            with self.state.database.write() as connection:
                for key, file in objects.annotation_values(connection, SOURCE_ANNOTATION):
                    if file == source or twice.get(key) == problem:
                        events.record(
                            connection, key, "Warning", "InvalidSpec", str(problem), now=now
                        )
        self.problems = problems

    def _prune(self, seen: dict[Key, Path], now: float) -> None:
        """Delete objects that came from a file of this folder and are in none any more.

        A protected object stays, and one whose whole file or folder became empty. And one that
        was there at the last look: subfolders are listed one after the other, so a file that is
        moved meanwhile may be in no list, and saving or unpacking may make files anew.
        """
        with self.state.database.read() as connection:
            vanished = self._vanished(connection, seen)
        twice = self._missed_twice([record.key for record, _ in vanished])
        vanished = [one for one in vanished if one[0].key in twice]
        kept: set[Key] = set()
        if not vanished:
            self.kept = kept
            return
        files = set(seen.values())
        deleted = {source: _was_deleted(source, files) for _, source in vanished}
        with self.state.database.write() as connection:
            for record, source in self._vanished(connection, seen):
                if record.key not in twice or source not in deleted:
                    continue  # its file was not looked for; the next scan does that
                if not deleted[source]:
                    kept.add(record.key)
                    if record.key not in self.kept:
                        self._report_kept(connection, record, source, now)
                    continue
                failpoints.reach("object-prune")
                try:
                    objects.remove(connection, record.key, now=now)
                except TerminalFailure as refused:
                    events.record(
                        connection,
                        record.key,
                        "Warning",
                        refused.reason,
                        f"its file is gone, but it was not deleted: {refused.message}",
                        now=now,
                    )
                else:
                    log.info("pruned", object=str(record.key), source=str(source))
        self.kept = kept

    def _missed_twice(self, keys: list[Key]) -> set[Key]:
        """Note what this look misses; return what the last ones missed as well, for long enough."""
        now, before = self.clock.elapsed(), self._missed_since
        self._missed_since = {key: before.get(key, now) for key in keys}
        missed = self._missed_since.items()
        twice = {key for key, since in missed if now >= since + SECOND_LOOK_SECONDS}
        if len(twice) < len(keys):
            self._rescans.soon()
        return twice

    def _vanished(
        self, connection: Connection, seen: dict[Key, Path]
    ) -> list[tuple[ObjectRecord, Path]]:
        """Return the objects that came from this folder and are in none of its files any more."""
        sources = {
            key: Path(source)
            for key, source in objects.annotation_values(connection, SOURCE_ANNOTATION)
            if key not in seen and Path(source).is_relative_to(self.folder)
        }
        records = objects.get_all(connection, set(sources))
        unprotected = [r for r in records if r.annotations.get(PROTECT_ANNOTATION) != "true"]
        return [(record, sources[record.key]) for record in unprotected]

    def _report_kept(
        self, connection: Connection, record: ObjectRecord, source: Path, now: float
    ) -> None:
        key = record.key
        message = (
            f"{source} is empty or its folder holds no spec any more, as when a disk is not "
            f"mounted: not deleted; if you meant it: loopscope -n {key.namespace} delete "
            f"{key.kind.lower()} {key.name}"
        )
        log.warning("kept", object=str(key), why=message)
        events.record(connection, key, "Warning", "SpecVanished", message, now=now)


def _was_deleted(source: Path, files: set[Path]) -> bool:
    """Whether an object was removed from ``source``; ``files`` hold the others.

    A file or folder that became empty as a whole does not count.
    """
    if source in files:
        return True
    try:
        source.lstat()
    except FileNotFoundError:
        return any(file.parent == source.parent for file in files)
    except OSError:
        return False
    return False
