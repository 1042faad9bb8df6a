"""The page as a file, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from loopscope.reports.page.html import (
    render_comparison,
    render_report,
    render_several,
    render_study,
    render_sweep,
)
from loopscope.state import failpoints
from loopscope.state.failures import TerminalFailure
from loopscope.state.files import durable_replace
from loopscope.views.chain import Chain
from loopscope.views.comparison import ComparisonView
from loopscope.views.experiment import ExperimentView
from loopscope.views.labels import NOWHERE, Described
from loopscope.views.replication.axes import Replicated
from loopscope.views.replication.pairs import Pairs
from loopscope.views.several import Several
from loopscope.views.studies import Study
from loopscope.views.sweeps import Sweep


def write_report(view: ExperimentView, path: Path, described: Described = NOWHERE) -> Path:
    """Write the report to a file, replacing an older one in one step; return its path."""
    return _write_page(path, lambda: render_report(view, described=described))


def write_several(title: str, found: Several, path: Path) -> Path:
    """Write the report on several experiments to a file, as ``write_report`` does."""
    return _write_page(path, lambda: render_several(title, found))


def write_sweep(
    sweep: Sweep,
    path: Path,
    chains: Sequence[Chain] = (),
    replicated: tuple[Replicated, Pairs] | None = None,
) -> Path:
    """Write the report of a sweep, of its chains and of what it replicates to a file."""
    return _write_page(path, lambda: render_sweep(sweep, chains, replicated))


def write_study(study: Study, path: Path) -> Path:
    """Write the report of a study to a file, as ``write_report`` does."""
    return _write_page(path, lambda: render_study(study))


def write_comparison(comparison: ComparisonView, path: Path) -> Path:
    """Write two experiments side by side to a file, as ``write_report`` does."""
    return _write_page(path, lambda: render_comparison(comparison))


def _write_page(path: Path, render: Callable[[], str]) -> Path:
    path = path.absolute()
    check_writable_place(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        failpoints.reach("report-write")
        temporary.write_text(render(), encoding="utf-8")
        durable_replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def check_writable_place(path: Path) -> None:
    """Raise TerminalFailure when nothing can be written at ``path``."""
    if path.is_dir():
        raise TerminalFailure("BadDestination", f"{path} is a folder; name a file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise TerminalFailure(
            "BadDestination",
            f"{path.parent} is not a folder that can be written; create it, or name another place",
        )
