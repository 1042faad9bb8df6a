"""The context that every command shares: the state folder, names of objects, exit codes."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from loopscope.specs.keys import Key
from loopscope.specs.pipeline import SHORT_BY_KIND
from loopscope.specs.suggest import closest
from loopscope.specs.yaml.spec_sources import STANDARD_INPUT
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.db.dialect.contract import Dialect
from loopscope.state.folder import StateFolder, database_of, may_hold_artifacts, open_state
from loopscope.state.read_only import open_to_read
from loopscope.state.records import ObjectRecord

EXIT_STALLED = 1
EXIT_BAD_INPUT = 2
EXIT_UNAVAILABLE = 3
EXIT_WAIT_STALLED = 4
EXIT_TIMED_OUT = 124
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

MAKING_SECONDS_MAX = 3.0
"""A database that another command makes is empty for less than this."""

KIND_BY_WORD = {
    word: kind
    for kind, short in SHORT_BY_KIND.items()
    for word in (kind.lower(), f"{kind.lower()}s", short)
}
"""Words that people type for a kind: singular, plural, short."""


class CommandError(Exception):
    """A command cannot do what was asked; the message has the reason and the remedy."""

    def __init__(self, message: str, exit_code: int = EXIT_BAD_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class NotFound(CommandError):
    """No object has that name."""


@dataclass(frozen=True)
class Globals:
    """The options that every command has, before or after its name."""

    state_path: Path
    namespace: str
    state_given: bool = False
    namespace_given: bool = False

    @property
    def only_namespace(self) -> str | None:
        """The namespace that was asked for, or None when none was."""
        return self.namespace if self.namespace_given else None

    def refuse_namespace(self, command: str) -> None:
        """Raise CommandError when a namespace was named for what concerns all of them."""
        if self.namespace_given:
            raise CommandError(f"{command} concerns every namespace; leave out --namespace")

    def open(self) -> StateFolder:
        """Open the state folder, creating it if need be."""
        return open_state(self.state_path)

    def open_existing(self) -> StateFolder:
        """Open the state folder; a missing one is an error, not an empty answer."""
        self._refuse_missing()
        return open_state(self.state_path)

    def open_to_read(self) -> StateFolder:
        """Open the state folder to look at it, also where nothing may be written."""
        self._refuse_missing()
        return open_to_read(self.state_path)

    def _refuse_missing(self) -> None:
        database = database_of(self.state_path)
        if _stays_empty(database):
            raise CommandError(
                f"{database.place} is empty: the recorded state is lost; run `loopscope rebuild "
                "SPECS` (artifacts that are still there are taken over without a run)",
                1,
            )
        missing = database.size_bytes() is None
        if missing and may_hold_artifacts(self.state_path):
            raise CommandError(
                f"{database.place} is gone, its artifacts are not; run `loopscope rebuild SPECS` "
                "(they are taken over without a run)",
                1,
            )
        if missing:
            raise CommandError(
                f"no state folder at {self.state_path}; run `loopscope apply -f …` first, "
                "or name one with --state or LOOPSCOPE_STATE"
            )


def _stays_empty(database: Dialect) -> bool:
    """Whether a database is empty, and not because the first command of all is making it."""
    deadline = time.monotonic() + MAKING_SECONDS_MAX
    while database.size_bytes() == 0:
        if time.monotonic() >= deadline:
            return True
        time.sleep(MAKING_SECONDS_MAX / 100)
    return False


def now() -> float:
    """Return Unix seconds: the commands' only clock."""
    return time.time()


def kind_of(word: str) -> str:
    """Return the kind that a word stands for."""
    kind = KIND_BY_WORD.get(word.lower())
    if kind is None:
        close = closest(word, KIND_BY_WORD)
        hint = f"; did you mean {close!r}?" if close else ""
        kinds = ", ".join(w for w in KIND_BY_WORD if w.endswith("s"))
        raise CommandError(f"unknown kind {word!r}; expected one of {kinds}{hint}")
    return kind


def split_name(words: list[str]) -> tuple[str, str | None]:
    """Read ``kind``, ``kind name`` or ``kind/name``."""
    if len(words) == 1 and "/" in words[0]:
        kind, name = words[0].split("/", 1)
        return kind_of(kind), name
    if len(words) > 2:
        raise CommandError(f"expected KIND NAME or KIND/NAME, found {' '.join(words)!r}")
    return kind_of(words[0]), words[1] if len(words) == 2 else None


def find(connection: Connection, kind: str, namespace: str, name: str) -> list[ObjectRecord]:
    """Return the named object; or, named by their experiment, its objects of that kind."""
    exact = objects.get(connection, Key(kind, namespace, name))
    if exact is not None:
        return [exact]
    experiment = objects.get(connection, Key("Experiment", namespace, name))
    family = all_owned_by(connection, experiment) if experiment else []
    found = [child for child in family if child.key.kind == kind]
    if not found:
        known = [r.key.name for r in objects.listed(connection, kind, namespace)]
        close = closest(name, known)
        only = "is only" if len(known) == 1 else "are"
        meant = f"; did you mean {close!r}?" if close else f"; there {only} {', '.join(known)}"
        hint = meant if known else "; there are none"
        raise NotFound(f"no {kind.lower()} named {name!r} in namespace {namespace}{hint}", 1)
    return found


def all_owned_by(connection: Connection, owner: ObjectRecord) -> list[ObjectRecord]:
    """Return what an object owns, and what that owns."""
    children = objects.owned_by(connection, owner.uid)
    return [one for child in children for one in (child, *all_owned_by(connection, child))]


def find_experiment(connection: Connection, namespace: str, name: str) -> ObjectRecord:
    """Return the experiment of that name; a sweep is refused, because only its cells have answers.

    Raises CommandError, with the names of the cells.
    """
    found = find_one(connection, "Experiment", namespace, name)
    if "matrix" in found.spec:
        cells = ", ".join(c.key.name for c in objects.owned_by(connection, found.uid)) or "none yet"
        raise CommandError(f"{name} is a sweep; name one of its cells: {cells}")
    return found


def find_one(connection: Connection, kind: str, namespace: str, name: str) -> ObjectRecord:
    """Return the one object of that name; raises CommandError when there are several."""
    found = find(connection, kind, namespace, name)
    if len(found) > 1:
        names = ", ".join(record.key.name for record in found)
        raise CommandError(f"{name!r} stands for {names}; name one of them")
    return found[0]


def root_of(path: Path, given: Path | None) -> Path:
    """Return the folder that files named in specs must lie under.

    ``--root`` if given; the folder itself for a folder; else the enclosing git checkout or
    the current folder, whichever holds the file. Standard input lies in the current folder.
    """
    if given is not None:
        return given.resolve()
    folder = Path.cwd() if path == STANDARD_INPUT else path.parent
    start = path if path.is_dir() else folder
    answer = subprocess.run(
        ["git", "-C", str(start), "rev-parse", "--show-toplevel"],
        capture_output=True,
        encoding=sys.getfilesystemencoding(),
        errors="surrogateescape",  # a folder's name need not be UTF-8
        check=False,
    )
    if answer.returncode == 0 and answer.stdout.strip():
        return Path(answer.stdout.strip())
    here = Path.cwd()
    return here if start.resolve().is_relative_to(here) else start.resolve()
