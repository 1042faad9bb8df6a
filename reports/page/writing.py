"""The page as a file, written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loopscope.reports.page.html import (
    render_comparison,
    render_report,
    render_several,
    render_study,
    render_sweep,
)
from loopscope.state.destinations import write_whole
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
    return write_whole(path, lambda: render_report(view, described=described))


def write_several(title: str, found: Several, path: Path) -> Path:
    """Write the report on several experiments to a file, as ``write_report`` does."""
    return write_whole(path, lambda: render_several(title, found))


def write_sweep(
    sweep: Sweep,
    path: Path,
    chains: Sequence[Chain] = (),
    replicated: tuple[Replicated, Pairs] | None = None,
) -> Path:
    """Write the report of a sweep, of its chains and of what it replicates to a file."""
    return write_whole(path, lambda: render_sweep(sweep, chains, replicated))


def write_study(study: Study, path: Path) -> Path:
    """Write the report of a study to a file, as ``write_report`` does."""
    return write_whole(path, lambda: render_study(study))


def write_comparison(comparison: ComparisonView, path: Path) -> Path:
    """Write two experiments side by side to a file, as ``write_report`` does."""
    return write_whole(path, lambda: render_comparison(comparison))
