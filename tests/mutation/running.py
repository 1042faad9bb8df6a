"""Running chosen tests inside a forked child."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

_QUIET = ("-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-m", "not integration")


def run_pytest(
    files: Sequence[str], folder: Path, plugins: Sequence[object], *more: str
) -> pytest.ExitCode:
    """Run the tests of the files; their temporary folders lie below ``folder``."""
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(folder)
    code = pytest.main([*_QUIET, *more, *files], plugins=list(plugins))
    return pytest.ExitCode(code)


class Chosen:
    """A plugin of pytest: leaves only the named tests, and remembers the first that fails."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = frozenset(names)
        self.failed: str | None = None

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        left_out = [item for item in items if item.nodeid not in self.names]
        items[:] = [item for item in items if item.nodeid in self.names]
        config.hook.pytest_deselected(items=left_out)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid
