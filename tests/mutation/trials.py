"""Trials: each mutant against the tests that run its lines, the quickest first."""

from __future__ import annotations

import ast
import hashlib
import importlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.mutation.covering import Covering, Traced
from tests.mutation.forks import Children, Ended, Limits
from tests.mutation.operators import Mutant
from tests.mutation.planting import plant
from tests.mutation.recording import Trial
from tests.mutation.running import Chosen, run_pytest

HANDFUL_SECONDS = (3.0, 30.0, 300.0)
"""Traced seconds of the first tests, the next, and those after them; the rest follows at once."""
FILES_AT_FIRST = 4
LIKELY_MAX = 12
"""So many of the tests that killed others of a file come before the quick ones."""
TIMES = 5.0
"""A child may take so many times the traced seconds of its tests, and something on top."""


@dataclass(frozen=True)
class Sources:
    """The files that mutants are of, as they are on disk."""

    root: Path
    package: str = "loopscope."

    def of(self, path: str) -> bytes:
        """Return the bytes of a file."""
        return (self.root / path).read_bytes()

    def module(self, path: str) -> str:
        """Return the name under which a file is imported."""
        return self.package + path.removesuffix(".py").replace("/", ".")

    def digest(self, path: str) -> str:
        """Return what tells one version of a file from another."""
        return hashlib.sha256(self.of(path)).hexdigest()[:12]


@dataclass(frozen=True)
class Readers:
    """Where names are read: by these lines a test meets what runs at import."""

    sources: Sources
    files: Sequence[str]

    def of(self, names: frozenset[str]) -> list[tuple[str, int]]:
        """Return the lines of all files that name any of the names."""
        return [place for name in sorted(names) for place in self._by_name.get(name, ())]

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[str, int]]]:
        found = defaultdict(list)
        for path in self.files:
            for node in ast.walk(ast.parse(self.sources.of(path))):
                if isinstance(node, ast.Name | ast.Attribute):
                    name = node.id if isinstance(node, ast.Name) else node.attr
                    found[name].append((path, node.lineno))
        return found


def covering_tests(mutant: Mutant, covering: Covering, readers: Readers) -> list[Traced]:
    """Return the tests that run a mutant's lines, quick ones first.

    What runs at import is met by every test that runs a line which names what is assigned there;
    where none is assigned, or none is named in a line that is run, by all that run the file.
    """
    if mutant.place.lines:
        return covering.of(mutant.path, mutant.place.lines)
    return covering.of_places(readers.of(mutant.place.names)) or covering.of_file(mutant.path)


@dataclass
class _Running:
    mutant: Mutant
    waiting: list[list[Traced]]
    left_out: int
    handful: list[Traced] = field(default_factory=list)
    tried: list[Traced] = field(default_factory=list)
    doubted: str | None = None
    """The test that failed, while it runs once more without the mutant."""
    began: float = field(default_factory=time.monotonic)


Attempt = Callable[[Mutant | None, Sequence[str], Path], dict[str, Any]]
"""Run tests in this process, with a mutant or without, and say what came of it."""


class Trials:
    """The children that try mutants; yields each trial as it ends.

    A test that fails kills only if it passes alone without the mutant, which is asked once.
    """

    def __init__(
        self,
        sources: Sources,
        children: Children,
        processes: int,
        attempt: Attempt,
        seconds_min: float,
        earlier: Iterable[Trial] = (),
    ) -> None:
        self.sources = sources
        self.children = children
        self.processes = processes
        self.attempt = attempt
        self.seconds_min = seconds_min
        self.passes: dict[str, bool] = {}
        self.killers: dict[str, Counter[str]] = defaultdict(Counter)
        for trial in earlier:
            self._learn(trial)

    def run(
        self, wanted: Sequence[tuple[Mutant, list[Traced]]], seconds_max: float
    ) -> Iterator[Trial]:
        """Try each mutant against its tests, those within ``seconds_max`` traced seconds."""
        waiting = list(wanted)
        running: dict[str, _Running] = {}
        while waiting or running:
            while waiting and len(running) < self.processes:
                mutant, tests = waiting.pop(0)
                within = _within(self._likely_first(mutant, tests), seconds_max)
                one = _Running(mutant, _handfuls(within), len(tests) - len(within))
                if not tests:
                    yield self._ended(one, "uncovered", None)
                    continue
                running[mutant.key] = one
                self._next_handful(one)
            if running:
                ended = self.children.next_ended()
                one = running[ended.name]
                outcome, by = self._judged(one, *_judged(ended))
                if outcome == "doubted":
                    continue
                if outcome == "survived" and self._next_handful(one):
                    continue
                del running[ended.name]
                yield self._ended(one, outcome, by)

    def _learn(self, trial: Trial) -> None:
        if trial.by is not None:
            for place in (trial.key.partition(" ")[0], trial.key.partition(": ")[0]):
                self.killers[place][trial.by] += 1

    def _likely_first(self, mutant: Mutant, tests: list[Traced]) -> list[Traced]:
        """Move tests to the front that killed others of its function, then of its file."""
        in_function = self.killers[mutant.key.partition(": ")[0]]
        in_file = self.killers[mutant.path]
        known = sorted(
            (test for test in tests if in_file[test.name]),
            key=lambda test: (-in_function[test.name], test.seconds / in_file[test.name]),
        )[:LIKELY_MAX]
        return [*known, *(test for test in tests if test not in known)]

    def _judged(self, one: _Running, outcome: str, by: str | None) -> tuple[str, str | None]:
        """Return what counts; "doubted" if something runs for it."""
        if one.doubted is not None:
            test, one.doubted = one.doubted, None
            self.passes[test] = outcome == "survived"
            outcome, by = "killed", test
        if outcome != "killed" or by not in {test.name for test in one.handful}:
            return outcome, by
        if by not in self.passes:
            one.doubted = by
            self._start(one, None, [test for test in one.handful if test.name == by])
        elif self.passes[by]:
            return "killed", by
        else:
            self._start(one, one.mutant, self._sound(one.handful))
        return "doubted", None

    def _sound(self, tests: list[Traced]) -> list[Traced]:
        return [test for test in tests if self.passes.get(test.name, True)]

    def _next_handful(self, one: _Running) -> bool:
        """Start the next tests of a mutant, if there are such."""
        if not one.waiting:
            return False
        one.handful = one.waiting.pop(0)
        one.tried += self._sound(one.handful)
        self._start(one, one.mutant, self._sound(one.handful))
        return True

    def _start(self, one: _Running, mutant: Mutant | None, tests: list[Traced]) -> None:
        cpu_seconds = self.seconds_min + TIMES * sum(test.seconds for test in tests)
        names = [test.name for test in tests]
        self.children.start(
            one.mutant.key,
            lambda folder: self.attempt(mutant, names, folder),
            Limits(cpu_seconds),
        )

    def _ended(self, one: _Running, outcome: str, by: str | None) -> Trial:
        trial = Trial(
            key=one.mutant.key,
            line=one.mutant.line,
            source=self.sources.digest(one.mutant.path),
            outcome=outcome,
            by=by,
            tests=len(one.tried),
            left_out=one.left_out,
            seconds=round(time.monotonic() - one.began, 1),
        )
        if outcome == "killed":
            self._learn(trial)
        return trial


@dataclass(frozen=True)
class Cold:
    """Attempts in a process that has not imported the code yet; any mutant can be tried so."""

    sources: Sources

    def attempt(self, mutant: Mutant | None, names: Sequence[str], folder: Path) -> dict[str, Any]:
        """Plant a mutant in this process for good and run tests; return what came of it."""
        if mutant is not None:
            refused = self._planted(mutant)
            if refused is not None:
                return refused
        if not names:
            return {"outcome": "survived", "by": None}
        chosen = Chosen(names)
        files = sorted({name.partition("::")[0] for name in names})
        code = run_pytest(files, folder, [chosen], "-x")
        if code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
            return {"outcome": "broken", "by": f"{code.name} for {', '.join(names)}"[:200]}
        outcome = "survived" if code == pytest.ExitCode.OK else "killed"
        return {"outcome": outcome, "by": chosen.failed or (code.name if code else None)}

    def _planted(self, mutant: Mutant) -> dict[str, Any] | None:
        file = (self.sources.root / mutant.path).resolve()
        try:
            planted = plant(file, mutant.applied(self.sources.of(mutant.path)))
            importlib.import_module(self.sources.module(mutant.path))
        except BaseException as refused:
            return {"outcome": "unviable", "by": f"{type(refused).__name__}: {refused}"[:200]}
        if not planted():
            return {"outcome": "broken", "by": "imported before the mutant was planted"}
        return None


def _judged(ended: Ended) -> tuple[str, str | None]:
    match ended.ending:
        case "answered":
            return ended.answer["outcome"], ended.answer["by"]
        case "too long":
            return "timeout", None
        case "died":
            return "killed", "the process died"
        case "failed":
            return "broken", ended.printed[-400:]


def _within(tests: list[Traced], seconds_max: float) -> list[Traced]:
    chosen, seconds = [], 0.0
    for test in tests:
        seconds += test.seconds
        if chosen and seconds > seconds_max:
            break
        chosen.append(test)
    return chosen


def _handfuls(tests: list[Traced]) -> list[list[Traced]]:
    """Divide tests: those of a few files, which are quickly collected, then more and more."""
    first = _of_few_files(_within(tests, HANDFUL_SECONDS[0]))
    handfuls = [first] if first else []
    rest = tests[len(first) :]
    for limit in HANDFUL_SECONDS:
        if rest:
            handful = _within(rest, limit)
            handfuls.append(handful)
            rest = rest[len(handful) :]
    return [*handfuls, rest] if rest else handfuls


def _of_few_files(tests: list[Traced]) -> list[Traced]:
    files: set[str] = set()
    for number, test in enumerate(tests):
        files.add(test.name.partition("::")[0])
        if len(files) > FILES_AT_FIRST:
            return tests[:number]
    return tests
