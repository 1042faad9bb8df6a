"""A study as a folder for other programs: a table of its concepts, its answer, its report."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from pathlib import Path

from loopscope.reports.page.html import render_study
from loopscope.reports.page.writing import check_writable_place
from loopscope.state.failures import TerminalFailure
from loopscope.state.files import durable_replace
from loopscope.views.studies import Study, study_document

TABLE, DOCUMENT, REPORT = "concepts.csv", "study.json", "report.html"


def write_study_folder(study: Study, directory: Path) -> Path:
    """Write ``concepts.csv``, ``study.json`` and ``report.html``, all or none; return the folder.

    Numbers have every digit; what is not known is empty, or null. Raises TerminalFailure where the
    folder is there already.
    """
    directory = directory.absolute()
    if directory.exists():
        raise TerminalFailure(
            "BadDestination", f"{directory} exists; remove it, or name another place"
        )
    check_writable_place(directory)
    document = study_document(study)
    files = {
        TABLE: _csv([{**one} for one in document["concepts"]]),
        DOCUMENT: json.dumps(document, indent=2, ensure_ascii=False) + "\n",
        REPORT: render_study(study),
    }
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for name, text in files.items():
            (temporary / name).write_text(text, encoding="utf-8")
        temporary.chmod(0o755)
        durable_replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def _csv(rows: list[dict[str, object]]) -> str:
    written = io.StringIO()
    writer = csv.DictWriter(written, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()
