"""Write the tables of ``docs/artifacts.md``: ``python docs/generate_artifact_tables.py``.

All facts come from ``loopscope.specs.artifacts``; the prose between the tables is written by hand.
A table follows a line ``<!-- files of STAGE -->`` or ``<!-- columns of FILE -->``. A test compares
the committed page with what this script returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from loopscope.specs.artifact_files import ArtifactFile, Column, Table, Tensor, Tensors
from loopscope.specs.artifacts.decomposition import CANDIDATE, FEATURES, bundled_features
from loopscope.specs.artifacts.mapping import FEATURES_TEST
from loopscope.specs.artifacts.robustness import ROBUSTNESS, ROBUSTNESS_TEXTS
from loopscope.specs.artifacts.sensitivity import SENSITIVITY
from loopscope.specs.artifacts.stages import FILES_BY_STAGE
from loopscope.specs.outcomes import OF_TEXTS

PAGE = Path(__file__).parent / "artifacts.md"
PLACE = re.compile(r"<!-- (files|columns) of (\S+) -->\n(?:\n(?:\|.*\n)+)?")

COLUMNS: dict[str, Sequence[Column]] = {
    **{
        file.name: file.columns
        for files in FILES_BY_STAGE.values()
        for file in files
        if isinstance(file, Table)
    },
    bundled_features("coarse"): (*FEATURES.columns, CANDIDATE),
    **{one.name: one.columns for one in (SENSITIVITY, ROBUSTNESS, ROBUSTNESS_TEXTS)},
    "OF_TEXTS": [column for outcome in OF_TEXTS.values() for column in outcome.columns],
    FEATURES_TEST.name: [one for one in FEATURES_TEST.columns if one not in FEATURES.columns],
}
"""Of each table its columns; what the test prompts share with the table of all latents is left out.

Of two tables with the same name that of the later stage counts: it has all columns of the other.
"""


def render(page: str) -> str:
    """Return the page with its tables as they are declared now."""
    return PLACE.sub(_table, page)


def _table(place: re.Match[str]) -> str:
    kind, name = place.groups()
    rows = _file_rows(FILES_BY_STAGE[name]) if kind == "files" else _column_rows(COLUMNS[name])
    return f"<!-- {kind} of {name} -->\n\n" + "".join(f"{row}\n" for row in rows)


def _file_rows(files: Iterable[ArtifactFile]) -> Iterator[str]:
    yield "| file | holds |"
    yield "|---|---|"
    for file in files:
        holds = _with_condition(file.about, file.where)
        if isinstance(file, Tensors):
            holds += ": " + ", ".join(map(_tensor, file.tensors))
        yield _row(f"`{file.name}`", holds)


def _tensor(tensor: Tensor) -> str:
    words = f"`{tensor.name}` {tensor.type} {tensor.shape}"
    notes = [tensor.meaning, f"only {tensor.where}" if tensor.where else ""]
    notes = [note for note in notes if note]
    return f"{words} ({'; '.join(notes)})" if notes else words


def _column_rows(columns: Iterable[Column]) -> Iterator[str]:
    yield "| column | type | unit | meaning |"
    yield "|---|---|---|---|"
    for column, same in groupby(columns, key=lambda one: replace(one, name="")):
        names = ", ".join(f"`{one.name}`" for one in same)
        meaning = _with_condition(column.meaning, column.where)
        yield _row(names, column.type, column.unit, meaning)


def _with_condition(words: str, where: str) -> str:
    return f"{words} (only {where})" if where else words


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
