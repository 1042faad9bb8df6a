"""Trials in children of a process that has imported the code and collected all tests.

Only the code of functions is changed there, so this serves mutants inside of functions that do
not run while modules are imported.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import pytest

from tests.mutation.operators import Mutant
from tests.mutation.planting import plant
from tests.mutation.running import Chosen, run_pytest
from tests.mutation.swapping import CannotSwapError, Living
from tests.mutation.trials import Sources

COLD = "cold"
"""The outcome of what must be tried in a process that has not imported the code."""


@dataclass(frozen=True)
class Warm:
    """Collected tests and living functions; each attempt runs in a forked child."""

    session: pytest.Session
    sources: Sources
    living: Living
    items: dict[str, pytest.Item]
    at_import: dict[str, frozenset[int]]
    """The lines of each file that ran while modules were imported."""

    def can_try(self, mutant: Mutant) -> bool:
        """Whether a mutant is inside a function that did not run yet."""
        ran = self.at_import.get(mutant.path, frozenset())
        return bool(mutant.place.lines) and not ran & mutant.place.lines

    def attempt(self, mutant: Mutant | None, names: Sequence[str], folder: Path) -> dict[str, Any]:
        """Change the function in this process for good and run tests; return what came of it."""
        if mutant is not None:
            refused = self._changed(mutant)
            if refused is not None:
                return refused
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(folder)
        return self._run(names)

    def _changed(self, mutant: Mutant) -> dict[str, Any] | None:
        file = (self.sources.root / mutant.path).resolve()
        before = self.sources.of(mutant.path)
        after = mutant.applied(before)
        try:
            plant(file, after)  # for tests that import the file once more
            self.living.swap(file, before, after)
        except SyntaxError as refused:
            return {"outcome": "unviable", "by": f"SyntaxError: {refused}"[:200]}
        except CannotSwapError as refused:
            return {"outcome": COLD, "by": str(refused)[:200]}
        return None

    def _run(self, names: Sequence[str]) -> dict[str, Any]:
        chosen = Chosen(names)
        self.session.config.pluginmanager.register(chosen)
        capture = self.session.config.pluginmanager.getplugin("capturemanager")
        capture.start_global_capturing()
        missing = [name for name in names if name not in self.items]
        if missing:
            return {"outcome": "broken", "by": f"not collected: {', '.join(missing)}"[:200]}
        items = [self.items[name] for name in names]
        for item, following in zip(items, [*items[1:], None], strict=False):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if chosen.failed:
                return {"outcome": "killed", "by": chosen.failed}
        return {"outcome": "survived", "by": None}


def with_collected(
    sources: Sources,
    files: Collection[str],
    tests: Sequence[str],
    scratch: Path,
    work: Callable[[Warm], None],
) -> None:
    """Import ``files`` and collect ``tests`` in this process, and let ``work`` go on from there."""
    at_import = _imported(sources, files)

    def go_on(session: pytest.Session) -> None:
        living = Living([(sources.root / path).resolve() for path in files])
        gc.collect()
        gc.freeze()  # children share what no collector touches
        items = {item.nodeid: item for item in session.items}
        work(Warm(session, sources, living, items, at_import))

    run_pytest(tests, scratch, [_Instead(go_on)])


def _imported(sources: Sources, files: Collection[str]) -> dict[str, frozenset[int]]:
    """Import files; return the lines of each that ran."""
    places = {str((sources.root / path).resolve()): path for path in files}
    measured = coverage.Coverage(
        data_file=None, include=list(places), config_file=False, messages=False
    )
    measured.start()
    for path in files:
        if path.split("/")[:3] != ["state", "db", "migrations"]:
            importlib.import_module(sources.module(path))
    measured.stop()
    data = measured.get_data()
    return {
        places[str(Path(file).resolve())]: frozenset(data.lines(file) or ())
        for file in data.measured_files()
    }


class _Instead:
    """A plugin of pytest: does something else with the collected tests than to run them."""

    def __init__(self, work: Callable[[pytest.Session], None]) -> None:
        self.work = work

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        capture = session.config.pluginmanager.getplugin("capturemanager")
        capture.stop_global_capturing()  # each child has its own
        self.work(session)
        capture.start_global_capturing()
        return True
