"""Which test runs which line, found by one traced run of each test file, and kept on disk."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import pytest

from tests.mutation.forks import Children, Limits
from tests.mutation.running import run_pytest
from tests.mutation.scope import ROOMS, TESTS, files_of

_LIMITS = Limits(cpu_seconds=3600)
Lines = dict[str, frozenset[int]]


@dataclass(frozen=True)
class Traced:
    """A test that passes: its processor seconds while traced, and the lines that it runs."""

    name: str
    seconds: float
    lines: Lines

    @property
    def breadth(self) -> int:
        """How many lines of the rooms it runs."""
        return sum(map(len, self.lines.values()))


class Covering:
    """All traced tests; asked which of them run a line."""

    def __init__(self, tests: Iterable[Traced]) -> None:
        self.tests = sorted(tests, key=lambda test: (test.seconds * test.breadth, test.name))

    def of(self, path: str, lines: Iterable[int]) -> list[Traced]:
        """Return the tests that run any of the lines, quick and narrow ones first."""
        wanted = frozenset(lines)
        return [test for test in self.tests if wanted & test.lines.get(path, frozenset())]

    def of_file(self, path: str) -> list[Traced]:
        """Return the tests that run any line of a file."""
        return [test for test in self.tests if path in test.lines]

    def of_places(self, places: Iterable[tuple[str, int]]) -> list[Traced]:
        """Return the tests that run any of the lines of any of the files."""
        wanted: dict[str, set[int]] = defaultdict(set)
        for path, line in places:
            wanted[path].add(line)
        return [
            test
            for test in self.tests
            if any(lines & test.lines.get(path, frozenset()) for path, lines in wanted.items())
        ]


def measure(root: Path, kept: Path, children: Children, processes: int) -> Iterator[str]:
    """Trace each test file that was not yet; yield a line for each that is done."""
    waiting = [file for file in files_of(TESTS, root) if not _place(root, kept, file).exists()]
    kept.mkdir(parents=True, exist_ok=True)
    while waiting or len(children):
        while waiting and len(children) < processes:
            file = waiting.pop(0)
            children.start(file, lambda folder, file=file: _trace(root, file, folder), _LIMITS)
        ended = children.next_ended()
        if ended.ending != "answered":
            raise RuntimeError(f"{ended.name} {ended.ending}:\n{ended.printed}")
        place = _place(root, kept, ended.name)
        unfinished = place.with_suffix(".part")
        unfinished.write_text(json.dumps(ended.answer))
        unfinished.rename(place)
        tests, failed = ended.answer["tests"], ended.answer["failed"]
        note = f", failing without any mutant: {', '.join(failed)}" if failed else ""
        yield f"{ended.name}: {len(tests)} tests{note} ({len(waiting) + len(children)} files left)"


def load(root: Path, kept: Path) -> Covering:
    """Return what was measured. Raises FileNotFoundError when a file was not traced as it is."""
    return Covering(
        Traced(name, seconds, {path: _lines(text) for path, text in lines.items()})
        for file in files_of(TESTS, root)
        for name, (seconds, lines) in json.loads(
            _place(root, kept, file).read_text()
        )["tests"].items()
    )  # fmt: skip


def source_digest(root: Path) -> str:
    """Return the digest of everything that decides which lines a test runs, but its own file."""
    rooms = files_of(_patterns(), root)
    support = [
        path
        for path in files_of(("tests/**/*.py",), root)
        if not Path(path).name.startswith("test_") and not path.startswith("tests/mutation/")
    ]
    digest = hashlib.sha256()
    for path in (*rooms, *support):
        digest.update(path.encode() + b"\0" + (root / path).read_bytes())
    return digest.hexdigest()


def _place(root: Path, kept: Path, file: str) -> Path:
    own = hashlib.sha256(source_digest(root).encode() + (root / file).read_bytes())
    return kept / f"{Path(file).stem}-{own.hexdigest()[:12]}.json"


def _trace(root: Path, file: str, folder: Path) -> dict[str, Any]:
    files = [str(root / path) for path in files_of(_patterns(), root)]
    measured = coverage.Coverage(data_file=None, include=files, config_file=False, messages=False)
    tracing = _Tracing(measured)
    measured.start()
    run_pytest([file], folder, [tracing])
    measured.stop()
    lines: dict[str, dict[str, str]] = defaultdict(dict)
    data = measured.get_data()
    for measured_file in data.measured_files():
        path = Path(measured_file).relative_to(root).as_posix()
        by_test: dict[str, list[int]] = defaultdict(list)
        for line, tests in data.contexts_by_lineno(measured_file).items():
            for test in tests:
                by_test[test].append(line)
        for test, numbers in by_test.items():
            lines[test][path] = _text(numbers)
    passed = {
        name: [round(seconds, 4), lines.get(name, {})]
        for name, seconds in tracing.seconds.items()
        if name not in tracing.failed
    }
    return {"tests": passed, "failed": sorted(tracing.failed)}


class _Tracing:
    """A plugin of pytest: names the running test to coverage, and takes its processor time."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured = measured
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.measured.switch_context(item.nodeid)
        began = time.process_time()
        yield
        self.seconds[item.nodeid] = time.process_time() - began
        self.measured.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:  # skipped tests hold nothing either
            self.failed.add(report.nodeid)


def _patterns() -> tuple[str, ...]:
    return tuple(pattern for patterns in ROOMS.values() for pattern in patterns)


def _text(numbers: Iterable[int]) -> str:
    """Return numbers as ranges: 1-3,7."""
    runs = itertools.groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])
    ends = [[number for _, number in run] for _, run in runs]
    return ",".join(f"{run[0]}-{run[-1]}" if run[1:] else str(run[0]) for run in ends)


def _lines(text: str) -> frozenset[int]:
    numbers: set[int] = set()
    for run in text.split(",") if text else ():
        first, _, last = run.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)
