"""From YAML files to stored objects: load, admit, apply, all or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.admission import check_inputs
from specs.errors import InvalidSpec
from specs.loading import LoadedObject, load_path
from specs.objects import SOURCE_ANNOTATION, Key
from state import objects
from state.folder import StateFolder
from state.objects import Outcome
from state.records import ObjectRecord


@dataclass(frozen=True)
class Applied:
    """What became of one object."""

    key: Key
    outcome: Outcome


@dataclass(frozen=True)
class FieldChange:
    """One field that an apply would change; None stands for *not there*."""

    field: str
    before: Any
    after: Any


def load_admitted(path: Path, root: Path) -> list[LoadedObject]:
    """Load what ``path`` holds and check the inputs that it names.

    Raises InvalidSpec with every problem found; then nothing may be stored.
    """
    loaded = load_path(path, root)
    problems = [
        item.problem(field, message)
        for item in loaded
        for field, message in check_inputs(item.manifest.kind, item.manifest.canonical_spec())
    ]
    if problems:
        raise InvalidSpec(problems)
    return loaded


def apply_all(state: StateFolder, loaded: list[LoadedObject], *, now: float) -> list[Applied]:
    """Store all objects in one transaction."""
    with state.database.write() as connection:
        return [
            Applied(
                item.manifest.key,
                objects.apply(
                    connection,
                    item.manifest.key,
                    item.manifest.canonical_spec(),
                    now=now,
                    labels=dict(item.manifest.metadata.labels),
                    annotations={
                        **item.manifest.metadata.annotations,
                        SOURCE_ANNOTATION: str(Path(item.document.file).resolve()),
                    },
                ),
            )
            for item in loaded
        ]


def changes(stored: ObjectRecord | None, item: LoadedObject) -> list[FieldChange]:
    """Return the fields of the spec that an apply would change, in name order."""
    before = dict(_flat(stored.spec if stored else {}, ()))
    after = dict(_flat(item.manifest.canonical_spec(), ()))
    return [
        FieldChange(field, before.get(field), after.get(field))
        for field in sorted(before.keys() | after.keys())
        if before.get(field) != after.get(field)
    ]


def _flat(value: Any, place: tuple[str, ...]) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [pair for name, inner in value.items() for pair in _flat(inner, (*place, name))]
    return [(".".join(("spec", *place)), value)]
