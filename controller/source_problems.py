"""What is wrong with a watched file, written on the objects that it last defined.

They keep their last good spec. The note is an annotation; reconcilers make a condition of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from loopscope.specs.errors import Problem
from loopscope.specs.keys import SOURCE_ANNOTATION, SOURCE_PROBLEM_ANNOTATION
from loopscope.state import objects
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord

NOTE_CHARACTERS_MAX = 1000


def mark_sources(state: StateFolder, problems: Sequence[Problem]) -> None:
    """Note each problem on the objects of its file, and take back the notes that are over.

    Writes nothing when nothing changed.
    """
    notes: dict[str, str] = {}
    for problem in problems:
        notes.setdefault(os.path.realpath(problem.file), str(problem)[:NOTE_CHARACTERS_MAX])
    with state.database.read() as connection:
        due = _due(connection, notes)
    if not due:
        return
    with state.database.write() as connection:
        for record in _due(connection, notes):
            objects.annotate(connection, record, SOURCE_PROBLEM_ANNOTATION, _note(record, notes))


def _due(connection: Any, notes: dict[str, str]) -> list[ObjectRecord]:
    """Return the objects whose note is not what it should be."""
    marked = {key for key, _ in objects.annotation_values(connection, SOURCE_PROBLEM_ANNOTATION)}
    if notes:
        sources = objects.annotation_values(connection, SOURCE_ANNOTATION)
        marked.update(key for key, source in sources if source in notes)
    records = objects.get_all(connection, marked)
    return [r for r in records if r.annotations.get(SOURCE_PROBLEM_ANNOTATION) != _note(r, notes)]


def _note(record: ObjectRecord, notes: dict[str, str]) -> str | None:
    return notes.get(record.annotations.get(SOURCE_ANNOTATION, ""))
