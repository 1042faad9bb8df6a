"""Owners: the sweep or the study that an experiment is one of, and what else it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from loopscope.reconcilers.experiment import owned_experiments
from loopscope.reconcilers.plan import ChildManifest
from loopscope.specs.canonical import digest
from loopscope.specs.keys import AXIS_LABEL_PREFIX, FAMILY_LABEL, Key
from loopscope.specs.status import Status
from loopscope.specs.sweep import CELLS_MAX, count, matrix_of
from loopscope.state.records import ObjectRecord
from loopscope.views.documents.objects import (
    ApplicableDocument,
    applicable_document,
    texts_in_place,
)


class OwnerJson(TypedDict):
    """What a bundle says of its experiment's owner.

    ``object`` is the owner as it could be applied again, ``digest`` that of its spec in there, and
    ``asks`` whether that spec stands for exactly this experiment: it may have been edited since.
    """

    object: ApplicableDocument
    uid: str
    generation: int
    digest: str
    asks: bool


def owner_json(owner: ObjectRecord, experiment: ObjectRecord) -> OwnerJson:
    """Return what a bundle of an experiment says of its owner."""
    document = applicable_document(owner)
    spec = texts_in_place(experiment.spec)
    return {
        "object": document,
        "uid": owner.uid,
        "generation": owner.generation,
        "digest": digest(document["spec"]),
        "asks": asks_for(document, experiment.key.name, spec),
    }


def asks_for(owner: ApplicableDocument, name: str, spec: Mapping[str, Any]) -> bool:
    """Whether an owner stands for an experiment of this name and spec, its texts in place."""
    found = _asked(owner).get(name)
    return found is not None and texts_in_place(found.spec) == spec


def owner_words(owner: OwnerJson, name: str) -> str:
    """Return in a sentence whose experiment this is, which one of how many."""
    document = owner["object"]
    asked = _asked(document)
    whole, part = ("study", "concepts") if document["kind"] == "Study" else ("sweep", "cells")
    metadata = document["metadata"]
    where = f"the {whole} {metadata['namespace']}/{metadata['name']}"
    seal = f"its spec has sha256:{owner['digest']} (generation {owner['generation']})"
    if name not in asked:
        return f"made by {where}, which was edited and does not ask for it any more; {seal}"
    values = ", ".join(_values(asked[name]))
    edited = "" if owner["asks"] else ", which was edited and now asks for another spec here"
    return f"one of {len(asked)} {part} of {where} ({values}){edited}; {seal}"


def _values(cell: ChildManifest) -> list[str]:
    """Return what tells a cell from the others: its values by axis, or its family."""
    axes = {
        label.removeprefix(AXIS_LABEL_PREFIX): value
        for label, value in cell.labels.items()
        if label.startswith(AXIS_LABEL_PREFIX)
    }
    family = cell.labels.get(FAMILY_LABEL)
    named = {**axes, **({"family": family} if family is not None else {})}
    return [f"{axis} {value}" for axis, value in sorted(named.items())]


def _asked(owner: ApplicableDocument) -> dict[str, ChildManifest]:
    """Return the experiments that an owner stands for, by name.

    Raises ValueError where there would be more than an owner may have: others wrote a bundle.
    """
    spec = dict(owner["spec"])
    if "matrix" in spec and count(matrix_of(spec)) > CELLS_MAX:
        raise ValueError(f"a sweep has at most {CELLS_MAX} cells")
    metadata = owner["metadata"]
    key = Key(owner["kind"], metadata["namespace"], metadata["name"])
    record = ObjectRecord(key, "", 0, 0, spec, Status(), 0.0)
    return {one.key.name: one for one in owned_experiments(record) or ()}
