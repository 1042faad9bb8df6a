"""Problems of watched files, written on the objects that they last defined.

They keep their last good spec. The note is an annotation; reconcilers make a condition of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loopscope.specs.errors import Problem
from loopscope.specs.keys import SOURCE_ANNOTATION, SOURCE_PROBLEM_ANNOTATION, Key
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord

NOTE_CHARACTERS_MAX = 1000
Notes = dict[str | Key, str]
"""What is wrong, by the file that is refused or by the object that it defines as well."""


def mark_sources(
    state: StateFolder, problems: Sequence[Problem], twice: Mapping[Key, Problem]
) -> None:
    """Note each problem on the objects of its file, and take back the notes that are over.

    ``twice`` are objects that another file defines as well, with the problem of that file. Writes
    nothing when nothing changed.
    """
    notes: Notes = {key: str(problem)[:NOTE_CHARACTERS_MAX] for key, problem in twice.items()}
    for problem in problems:
        file = str(Path(problem.file).absolute())
        notes.setdefault(file, str(problem)[:NOTE_CHARACTERS_MAX])
    with state.database.read() as connection:
        due = _due(connection, notes)
    if not due:
        return
    with state.database.write() as connection:
        for record in _due(connection, notes):
            objects.annotate(connection, record, SOURCE_PROBLEM_ANNOTATION, _note(record, notes))


def _due(connection: Connection, notes: Notes) -> list[ObjectRecord]:
    """Return the objects whose note is not what it should be."""
    marked = {key for key, _ in objects.annotation_values(connection, SOURCE_PROBLEM_ANNOTATION)}
    if notes:
        sources = objects.annotation_values(connection, SOURCE_ANNOTATION)
        marked.update(key for key, source in sources if source in notes or key in notes)
    records = objects.get_all(connection, marked)
    return [r for r in records if r.annotations.get(SOURCE_PROBLEM_ANNOTATION) != _note(r, notes)]


def _note(record: ObjectRecord, notes: Notes) -> str | None:
    of_file = notes.get(record.annotations.get(SOURCE_ANNOTATION, ""))
    return of_file or notes.get(record.key)
