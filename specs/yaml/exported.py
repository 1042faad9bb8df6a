"""Fields that ``get -o yaml`` adds, so that its output can be applied again."""

from __future__ import annotations

from collections.abc import Iterator

from loopscope.specs.errors import InvalidSpec, Problem
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import API_VERSION, SOURCE_ANNOTATION, SOURCE_PROBLEM_ANNOTATION
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.yaml.messages import short
from loopscope.specs.yaml.nodes import Document, Place

STORE_FIELDS = (
    "uid",
    "generation",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "finalizers",
    "ownerReferences",
    "managedFields",
)
"""Fields of ``metadata`` that the store writes. In a file they are ignored."""
STORE_ANNOTATIONS = (SOURCE_ANNOTATION, SOURCE_PROBLEM_ANNOTATION)
"""Annotations that the store writes. In a file they are ignored."""
_LIST_KINDS = ("List", *(f"{kind}List" for kind in SPEC_BY_KIND))
_LIST_FIELDS = ("apiVersion", "kind", "metadata", "items")


def is_exported(value: Json) -> bool:
    """Whether a document was printed from the store: its metadata holds what only that adds."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    return isinstance(metadata, dict) and any(name in metadata for name in STORE_FIELDS)


def as_written(metadata: JsonObject) -> JsonObject:
    """Return the metadata of an exported document without what the store wrote."""
    kept = {name: value for name, value in metadata.items() if name not in STORE_FIELDS}
    notes = kept.get("annotations")
    if isinstance(notes, dict):
        kept["annotations"] = {k: v for k, v in notes.items() if k not in STORE_ANNOTATIONS}
    return kept


def objects_in(document: Document) -> Iterator[Document]:
    """Yield the items of a document of kind ``List``, and any other document as it is.

    Raises InvalidSpec for a list that is none.
    """
    value = document.value
    if not isinstance(value, dict) or value.get("kind") not in _LIST_KINDS:
        yield document
        return
    problems = list(_problems(document, value))
    items = value.get("items")
    if problems or not isinstance(items, list):
        raise InvalidSpec(problems)
    marks: dict[int | str, dict[Place, tuple[int, int]]] = {}
    for place, mark in document.marks.items():
        if len(place) >= 2 and place[0] == "items":
            marks.setdefault(place[1], {})[place[2:]] = mark
    for index, item in enumerate(items):
        yield Document(document.file, item, marks.get(index, {}))


def _problems(document: Document, value: JsonObject) -> Iterator[Problem]:
    for name in value:
        if name not in _LIST_FIELDS:
            expected = ", ".join(_LIST_FIELDS)
            yield document.problem((name,), f"unknown field of a list; expected {expected}")
    if value.get("apiVersion") not in ("v1", API_VERSION):
        found = short(value.get("apiVersion"))
        yield document.problem(("apiVersion",), f"expected {API_VERSION!r}, found {found}")
    if not isinstance(value.get("items"), list):
        found = short(value.get("items"))
        yield document.problem(("items",), f"expected a list of objects, found {found}")
