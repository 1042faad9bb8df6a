"""A study or a sweep as a folder for other programs: a table, the answer, its report."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loopscope.reports.page.html import render_study
from loopscope.state.destinations import check_writable_place, told_of
from loopscope.state.failures import TerminalFailure
from loopscope.state.files import durable_replace
from loopscope.views.studies import Study, study_document
from loopscope.views.sweeps import Sweep, SweepCellDocument, sweep_document

REPORT, STATIC = "report.html", "report-static.html"
CONCEPTS, STUDY = "concepts.csv", "study.json"
GRID, SWEEP, CELLS = "cells.csv", "sweep.json", "cells"


@dataclass(frozen=True)
class SweepPages:
    """The report of a sweep, to explore and without a script."""

    explorable: str
    static: str


def write_study_folder(study: Study, directory: Path) -> Path:
    """Write ``concepts.csv``, ``study.json`` and both reports, all or none; return the folder.

    The page of a study has no script, so its two reports are one and the same.
    Numbers have every digit; what is not known is empty, or null. Raises TerminalFailure where the
    folder is there already.
    """
    document = study_document(study)
    concepts = [{**one} for one in document["concepts"]]
    page = render_study(study)
    files = {
        CONCEPTS: _csv(
            list(concepts[0]) if concepts else [], [[*one.values()] for one in concepts]
        ),
        STUDY: _json(document),
        REPORT: page,
        STATIC: page,
    }
    return _write(files, {}, directory)


def write_sweep_folder(
    sweep: Sweep,
    pages: SweepPages,
    bundles: Mapping[str, Callable[[Path], object]],
    directory: Path,
) -> Path:
    """Write ``cells.csv``, ``sweep.json``, both reports and a bundle a cell in ``cells/``.

    ``bundles`` write that of a cell, by its name, to a folder. All or none, as
    ``write_study_folder``; raises what a bundle raises.
    """
    document = sweep_document(sweep)
    own = [name for name in SweepCellDocument.__annotations__ if name not in ("name", "values")]
    head = ["name", *(axis.name for axis in sweep.axes), *own]
    rows = [
        [cell["name"], *cell["values"].values(), *({**cell}[name] for name in own)]
        for cell in document["cells"]
    ]
    files = {
        GRID: _csv(head, rows),
        SWEEP: _json(document),
        REPORT: pages.explorable,
        STATIC: pages.static,
    }
    return _write(files, bundles, directory)


def _write(
    files: Mapping[str, str], bundles: Mapping[str, Callable[[Path], object]], directory: Path
) -> Path:
    directory = directory.absolute()
    if directory.exists():
        raise TerminalFailure(
            "BadDestination", f"{directory} exists; remove it, or name another place"
        )
    check_writable_place(directory)
    with told_of(directory):
        temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            for name, text in files.items():
                (temporary / name).write_text(text, encoding="utf-8")
            for name, write in bundles.items():
                (temporary / CELLS).mkdir(exist_ok=True)
                write(temporary / CELLS / name)
            temporary.chmod(0o755)
            durable_replace(temporary, directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return directory


def _json(document: Mapping[str, object]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerows([head, *rows])
    return written.getvalue()
