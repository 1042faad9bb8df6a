"""Checks that an apply had to leave out, because only a hub knows the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from loopscope.controller.reconcile.resolution import is_local
from loopscope.inputs.fetched import fetched
from loopscope.reconcilers.references import InputReference, model_reference
from loopscope.specs import study, sweep
from loopscope.specs.errors import Problem
from loopscope.specs.json_values import JsonObject
from loopscope.specs.payloads.steering import SIDES
from loopscope.specs.spec_json import (
    CaptureJson,
    DecompositionJson,
    DictionaryJson,
    ExperimentJson,
    ModelJson,
)
from loopscope.specs.yaml.loading import LoadedObject
from loopscope.state.db import inputs
from loopscope.state.folder import StateFolder


def unchecked_inputs(state: StateFolder | None, loaded: Sequence[LoadedObject]) -> list[Problem]:
    """Return a note for each model and dictionary that is not resolved yet, with its place."""
    notes: dict[Problem, None] = {}
    for item in loaded:
        for field, reference in named_inputs(item.manifest.kind, item.manifest.canonical_spec()):
            if is_local(reference):
                continue
            words = _what_is_not_known(state, reference)
            if words is not None:
                notes[item.problem(field, words)] = None
    return list(notes)


def _what_is_not_known(state: StateFolder | None, reference: InputReference) -> str | None:
    known = None
    if state is not None:
        with state.database.read() as connection:
            known = inputs.get(connection, reference.digest)
    if known is not None and known.facts is not None:
        return None
    if known is None and fetched(reference.digest) is not None:
        return None
    name = input_name(reference)
    if known is not None and known.terminal:
        return f"refused when it was looked up last: {known.message}; it is asked for again"
    last = f" (last answer: {known.message})" if known is not None else ""
    return (
        f"not checked: only the hub knows whether there is a {name}; it is asked when work "
        f"begins{last}"
    )


def input_name(reference: InputReference) -> str:
    """Return what a spec names, in words."""
    if reference.kind == "model":
        model = cast(ModelJson, reference.reference)
        return f"model {model.get('source', {}).get('hub') or model['name']}"
    dictionary = cast(DictionaryJson, reference.reference)
    if "path" in dictionary:
        return f"dictionary {dictionary['path']}"
    return f"dictionary {dictionary['id']} of release {dictionary['release']}"


def named_inputs(kind: str, spec: JsonObject) -> Iterator[tuple[str, InputReference]]:
    """Yield the models and dictionaries that a spec names, with the field that names each."""
    if kind == "Study":
        for one in study.concept_experiments(spec)[:1]:  # they are the same for all
            for field, reference in named_inputs("Experiment", one.spec):
                where = study.origin(one.name, tuple(field.split(".")[1:]))
                yield ".".join(("spec", *map(str, where))), reference
        return
    if kind == "Experiment" and "matrix" in spec:
        for cell in sweep.cells(spec):
            for field, reference in named_inputs(kind, cell.spec):
                place = sweep.origin(sweep.matrix_of(spec), cell, tuple(field.split(".")[1:]))
                named = field if place is None else ".".join(("spec", *map(str, place)))
                yield named, reference
        return
    found = []
    if kind in ("Experiment", "Capture"):
        read = cast(ExperimentJson | CaptureJson, spec)
        model = read["model"]
        field = "source.hub" if "hub" in (model.get("source") or {}) else "name"
        found.append((f"spec.model.{field}", model_reference(model, read["prompts"])))
    if kind == "Experiment":
        dictionaries = cast(ExperimentJson, spec)["dictionaries"]
        for side in SIDES:
            reference = InputReference("dictionary", dictionaries[side])
            found.append((f"spec.dictionaries.{side}.release", reference))
    if kind == "Decomposition":
        reference = InputReference("dictionary", cast(DecompositionJson, spec)["dictionary"])
        found.append(("spec.dictionary.release", reference))
    yield from found
