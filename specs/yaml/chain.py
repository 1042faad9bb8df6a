"""A chain of dictionaries, written as a list: a sweep over its neighbouring pairs.

``dictionaries: [a, b, c]`` is how a file writes the axis *pair* with the values ``1-2`` and
``2-3``. What is stored are the pairs; problems point at the list.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from loopscope.specs.errors import Problem
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.yaml.nodes import Document, Place

AXIS = "pair"
_LIST: Place = ("spec", "dictionaries")
_SIDES = ("coarse", "fine")


@dataclass(frozen=True)
class ChainDocument(Document):
    """A document whose chain was written out as pairs; problems point at what was written."""

    def problem(self, place: Place, message: str) -> Problem:
        """Point at ``place`` as it stands in the file."""
        return Document.problem(self, _as_written(place), message)


def written_out(document: Document) -> Document:
    """Return a document with a list of dictionaries as pairs; any other as it is.

    A list of fewer than two, and one beside an axis of the same name, is left for the checks.
    """
    value = document.value
    spec = value.get("spec") if isinstance(value, dict) else None
    listed = spec.get("dictionaries") if isinstance(spec, dict) else None
    if not isinstance(value, dict) or not isinstance(spec, dict) or not isinstance(listed, list):
        return document
    matrix = spec.get("matrix", {})
    if len(listed) < 2 or not isinstance(matrix, dict) or AXIS in matrix:
        return document
    pairs = [dict(zip(_SIDES, pair, strict=True)) for pair in itertools.pairwise(listed)]
    written: JsonObject = {**spec, "dictionaries": pairs[0]}
    if len(pairs) > 1:
        values: JsonObject = {
            f"{place}-{place + 1}": {"dictionaries": pair} for place, pair in enumerate(pairs, 1)
        }
        written["matrix"] = {**matrix, AXIS: values}
    whole: Json = {**value, "spec": written}
    return ChainDocument(document.file, whole, document.marks)


def _as_written(place: Place) -> Place:
    """Return where in the list a field of a pair stands."""
    match place:
        case ("spec", "dictionaries", "coarse" | "fine" as side, *rest):
            return (*_LIST, _SIDES.index(side), *rest)
        case (
            "spec",
            "matrix",
            "pair",
            str(value),
            "dictionaries",
            "coarse" | "fine" as side,
            *rest,
        ):
            first = int(value.partition("-")[0]) - 1
            return (*_LIST, first + _SIDES.index(side), *rest)
        case ("spec", "matrix", "pair", *_):
            return _LIST
    return place
