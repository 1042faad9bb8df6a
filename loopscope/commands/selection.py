"""The objects that a command is about: kinds and names, labels and fields, and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from loopscope.context import Asked, CommandError, Globals, NotFound, asked_for, find
from loopscope.jsonpath import find as values_at
from loopscope.specs.pipeline import PLURAL_BY_KIND
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.records import ObjectRecord
from loopscope.views.documents.objects import object_document
from loopscope.views.present import present
from loopscope.views.selectors import (
    FieldTerm,
    Selector,
    names_instead,
    parse_field_selector,
    parse_selector,
)

SelectorOption = Annotated[
    str | None, typer.Option("--selector", "-l", help="Labels: a=b,c!=d,e in (f,g),h,!i.")
]
FieldSelectorOption = Annotated[
    str | None,
    typer.Option(
        "--field-selector", help="Fields: metadata.name=a,status.summary.gate!=GO; all must fit."
    ),
]
SortOption = Annotated[
    str | None, typer.Option("--sort-by", metavar="PATH", help="For example .metadata.name.")
]
EverywhereOption = Annotated[
    bool, typer.Option("--all-namespaces", "-A", help="Objects of every namespace.")
]
_ROOTS = ("apiVersion", "kind", "metadata", "spec", "status")


@dataclass(frozen=True)
class Selection:
    """What was asked for. ``namespace``: None is every one; ``fields``: all must fit."""

    asked: tuple[Asked, ...]
    namespace: str | None
    labels: Selector
    fields: tuple[FieldTerm, ...] = ()
    sort_by: str | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds, each once, as they were asked for."""
        return tuple(dict.fromkeys(one.kind for one in self.asked))

    @property
    def names_one(self) -> bool:
        """Whether one object was named: it is printed alone, not as a list."""
        return len(self.asked) == 1 and self.asked[0].name is not None

    @property
    def nothing_found(self) -> str:
        """The sentence for a selection that no object fits."""
        what = PLURAL_BY_KIND[self.kinds[0]] if len(self.kinds) == 1 else "objects"
        return f"No {what} found{f' in namespace {self.namespace}' if self.namespace else ''}."

    def by_kind(
        self, connection: Connection, *, missing: list[NotFound] | None = None
    ) -> dict[str, list[ObjectRecord]]:
        """Return the objects as they stand now, by kind; a kind without any has an empty list.

        Raises NotFound for a name that no object has, or puts it into ``missing``, and CommandError
        when no object has the field to sort by.
        """
        found: dict[str, list[ObjectRecord]] = {kind: [] for kind in self.kinds}
        for one in self.asked:
            known = {record.key for record in found[one.kind]}
            some = self._found(connection, one, missing)
            found[one.kind] += [record for record in some if record.key not in known]
        return {
            kind: self._sorted(list(self._fitting(present(connection, records))))
            for kind, records in found.items()
        }

    def records(
        self, connection: Connection, *, missing: list[NotFound] | None = None
    ) -> list[ObjectRecord]:
        """Return the objects of all kinds, as ``by_kind`` does."""
        groups = self.by_kind(connection, missing=missing).values()
        return [record for group in groups for record in group]

    def _found(
        self, connection: Connection, one: Asked, missing: list[NotFound] | None
    ) -> list[ObjectRecord]:
        if one.name is None:
            return objects.listed(connection, one.kind, self.namespace)
        assert self.namespace is not None  # a name is looked for in one namespace
        try:
            return find(connection, one.kind, self.namespace, one.name)
        except NotFound as unknown:
            if missing is None:
                raise
            missing.append(unknown)
            return []

    def _fitting(self, records: list[ObjectRecord]) -> Iterator[ObjectRecord]:
        for record in records:
            if self.labels(record.labels) and self._has_fields(record):
                yield record

    def _has_fields(self, record: ObjectRecord) -> bool:
        if not self.fields:
            return True
        document = object_document(record)
        return all(term.fits(document) for term in self.fields)

    def _sorted(self, records: list[ObjectRecord]) -> list[ObjectRecord]:
        if self.sort_by is None or not records:
            return records
        places = [_place(self.sort_by, record) for record in records]
        if all(place == _NOWHERE for place in places):
            kind = records[0].key.kind.lower()
            raise CommandError(f"--sort-by: no {kind} has the field {self.sort_by}", 1)
        order = sorted(range(len(records)), key=lambda number: places[number])
        return [records[number] for number in order]


_NOWHERE = (2, 0.0, "")


def _place(path: str, record: ObjectRecord) -> tuple[int, float, str]:
    """Return where an object comes: numbers, then texts, last what has no such field."""
    values = values_at(path, object_document(record))
    value: Any = values[0] if values else None
    if value is None:
        return _NOWHERE
    if isinstance(value, bool | int | float):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def selection_of(
    given: Globals,
    words: list[str],
    labels: str | None = None,
    fields: str | None = None,
    sort_by: str | None = None,
    *,
    everywhere: bool = False,
) -> Selection:
    """Return what words and options of a command ask for. Raises CommandError."""
    asked = asked_for(words)
    if everywhere and given.namespace_given:
        raise CommandError("give --all-namespaces or --namespace, not both")
    if everywhere and any(one.name is not None for one in asked):
        raise CommandError("a name is looked for in one namespace; leave out --all-namespaces")
    return Selection(
        asked,
        None if everywhere else given.namespace,
        _read("--selector", parse_selector, labels),
        tuple(_fields(fields)),
        _sort_path(sort_by),
    )


def _fields(text: str | None) -> list[FieldTerm]:
    terms: list[FieldTerm] = _read("--field-selector", parse_field_selector, text)
    for term in terms:
        if term.path[0] not in _ROOTS:
            raise CommandError(
                f"--field-selector: no object has a field {'.'.join(term.path)!r}; a path begins "
                f"with one of {', '.join(_ROOTS)}"
            )
        if names := names_instead(term.path):
            raise CommandError(
                f"--field-selector: no object has a field {'.'.join(term.path)!r}; below "
                f"{term.path[0]} stand {', '.join(names)}"
            )
    return terms


def _sort_path(text: str | None) -> str | None:
    if text is None:
        return None
    path = text[1:-1] if text.startswith("{") and text.endswith("}") else text
    _read("--sort-by", lambda one: values_at(one, {}), path)
    return path


def _read(option: str, reader: Callable[[str], Any], text: str | None) -> Any:
    try:
        return reader(text or "")
    except LookupError:
        return None  # a place in a list that the empty document has not
    except ValueError as error:
        raise CommandError(f"{option} {error}") from None
