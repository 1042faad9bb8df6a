"""The context that every command shares: the state folder, names of objects, exit codes.

What opens a state is imported where one is opened: SQLAlchemy takes longer than all else of a short
command, and those that are about the program need no state.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loopscope.specs.keys import Key
from loopscope.specs.pipeline import PLURAL_BY_KIND, SHORT_BY_KIND
from loopscope.specs.suggest import closest
from loopscope.specs.yaml.spec_sources import STANDARD_INPUT

if TYPE_CHECKING:
    from loopscope.state.db.connection import Connection
    from loopscope.state.db.dialect.contract import Dialect
    from loopscope.state.folder import StateFolder
    from loopscope.state.machine_rates import MachineRates
    from loopscope.state.records import ObjectRecord
    from loopscope.views.forecasts import Forecaster, Known

STATE_FOLDER = ".loopscope"
EXIT_STALLED = 1
EXIT_BAD_INPUT = 2
EXIT_UNAVAILABLE = 3
EXIT_WAIT_STALLED = 4
EXIT_DIFFERS = 5
"""A bundle is not what it says of itself."""
EXIT_GO_ON = 75
"""``EX_TEMPFAIL`` of sysexits.h: the time for work was over; the same command goes on."""
EXIT_TIMED_OUT = 124
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

MAKING_SECONDS_MAX = 3.0
"""A database that another command makes is empty for less than this."""

KIND_BY_WORD = {
    word: kind
    for kind, short in SHORT_BY_KIND.items()
    for word in (kind.lower(), PLURAL_BY_KIND[kind], short)
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

    state: str
    """A state folder, or the URL of a database."""
    namespace: str
    state_given: bool = False
    namespace_given: bool = False
    artifacts: str | None = None
    """The URL of a bucket, where artifacts are to be kept in one."""

    @cached_property
    def state_path(self) -> Path:
        """The state folder; a URL makes the usual one, whose database lies there. Raises Failure.

        Only who needs it asks: a version and help are there without any database or bucket.
        """
        from loopscope.state.folder import keep_artifacts_at, keep_database_at

        folder = Path(STATE_FOLDER if "://" in self.state else self.state)
        if "://" in self.state:
            keep_database_at(folder, self.state)
        if self.artifacts is not None:
            keep_artifacts_at(folder, self.artifacts)
        return folder

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
        from loopscope.state.folder import open_state

        return open_state(self.state_path)

    def open_existing(self) -> StateFolder:
        """Open the state folder; a missing one is an error, not an empty answer."""
        from loopscope.state.folder import open_state

        self._refuse_missing()
        return open_state(self.state_path)

    def open_to_read(self) -> StateFolder:
        """Open the state folder to look at it, also where nothing may be written."""
        from loopscope.state.read_only import open_to_read

        self._refuse_missing()
        return open_to_read(self.state_path)

    def _refuse_missing(self) -> None:
        from loopscope.state.folder import database_of, may_hold_artifacts, refuse_backup

        database = database_of(self.state_path)
        if _stays_empty(database):
            raise CommandError(
                f"{database.place} is empty: the recorded state is lost; run `loopscope rebuild "
                "SPECS` (artifacts that are still there are taken over without a run)",
                1,
            )
        missing = database.size_bytes() is None
        if missing:
            refuse_backup(self.state_path)
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


class Asked(NamedTuple):
    """A kind, and the object of that kind that was named; None: all of them."""

    kind: str
    name: str | None


def asked_for(words: list[str]) -> tuple[Asked, ...]:
    """Read ``kind``, ``kind,kind``, ``all``, ``kind name…`` or ``kind/name…``, as kubectl does.

    Raises CommandError.
    """
    if any("/" in word for word in words):
        pairs = [word.split("/", 1) for word in words]
        if any(len(pair) == 1 for pair in pairs):
            raise CommandError(
                f"expected KIND NAME… or KIND/NAME…, not both; found {' '.join(words)!r}"
            )
        found = [Asked(kind_of(kind), name) for kind, name in pairs]
    else:
        first, *names = words
        kinds = SHORT_BY_KIND if first == "all" else map(kind_of, first.split(","))
        found = [Asked(kind, name) for kind in kinds for name in (names or (None,))]
    return tuple(dict.fromkeys(found))


def experiment_names(words: list[str], command: str) -> list[str]:
    """Return the names in ``france``, ``experiment france`` or ``experiment/france``.

    What is no name of an object stays as it is. Raises CommandError for another kind.
    """
    if len(words) > 1 and words[0].lower() in KIND_BY_WORD:
        _refuse_other_kind(words[0], command)
        words = words[1:]
    return [_experiment_name(word, command) for word in words]


def study_named(words: list[str]) -> str | None:
    """Return the name in ``study animals`` or ``study/animals``; None for anything else."""
    kind, slash, name = words[0].partition("/")
    if slash and not name:
        return None
    parts = [name, *words[1:]] if slash else words[1:]
    if KIND_BY_WORD.get(kind.lower()) != "Study" or (slash and Path(words[0]).exists()):
        return None
    return parts[0] if len(parts) == 1 else None


def _experiment_name(word: str, command: str) -> str:
    kind, slash, name = word.partition("/")
    if not (slash and name) or kind.lower() not in KIND_BY_WORD or Path(word).is_dir():
        return word
    _refuse_other_kind(kind, command)
    return name


def _refuse_other_kind(word: str, command: str) -> None:
    kind = kind_of(word)
    if kind != "Experiment":
        raise CommandError(f"{command} is about experiments; a {kind.lower()} belongs to one")


def find(connection: Connection, kind: str, namespace: str, name: str) -> list[ObjectRecord]:
    """Return the named object; or, named by their experiment, its objects of that kind."""
    from loopscope.state.db import objects
    from loopscope.views.stages import descendants

    exact = objects.get(connection, Key(kind, namespace, name))
    if exact is not None:
        return [exact]
    experiment = objects.get(connection, Key("Experiment", namespace, name))
    family = descendants(connection, [experiment]) if experiment else []
    found = [child for child in family if child.key.kind == kind]
    if not found:
        known = [r.key.name for r in objects.listed(connection, kind, namespace)]
        close = closest(name, known)
        only = "is only" if len(known) == 1 else "are"
        meant = f"; did you mean {close!r}?" if close else f"; there {only} {', '.join(known)}"
        hint = meant if known else "; there are none"
        raise NotFound(f"no {kind.lower()} named {name!r} in namespace {namespace}{hint}", 1)
    return found


def find_experiment(connection: Connection, namespace: str, name: str) -> ObjectRecord:
    """Return the experiment of that name; a sweep is refused, because only its cells have answers.

    Raises CommandError, with the names of the cells.
    """
    from loopscope.state.db import objects

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


def rates_of_this_machine() -> MachineRates | None:
    """Return what a probe measured here, on the device on which workers compute by default."""
    from loopscope.inputs.files import default_cache  # late: most commands need it not
    from loopscope.state.machine_rates import read_rates

    return read_rates(default_cache(), os.environ.get("LOOPSCOPE_DEVICE") or "cpu")


def forecaster_of_this_machine(known: Known) -> Forecaster:
    """Return what foresees stages on this machine."""
    from loopscope.views.forecasts import Forecaster  # late: what is unchanged is quick

    return Forecaster(known, rates_of_this_machine())
