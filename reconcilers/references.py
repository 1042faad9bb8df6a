"""References of a spec: the objects, the model and the dictionary that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from loopscope.specs.canonical import digest
from loopscope.specs.chat_words import CHAT_TEMPLATE, needs_template
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import LOADED_BY_KIND, NODES, REFERENCE_KINDS, nodes_of
from loopscope.specs.study import concept_names
from loopscope.specs.sweep import cell_names
from loopscope.state.records import ObjectRecord


@dataclass(frozen=True)
class InputReference:
    """A model or dictionary as the spec names it."""

    kind: Literal["model", "dictionary"]
    reference: Mapping[str, object]

    @cached_property
    def digest(self) -> str:
        """The name under which its observation is kept."""
        return digest({"kind": self.kind, "reference": self.reference})


def child_key(experiment: Key, name: str) -> Key:
    """Return the key of the object that an experiment owns for a node of the pipeline."""
    return Key(NODES[name].kind, experiment.namespace, f"{experiment.name}-{name}")


def object_references(record: ObjectRecord) -> list[Key]:
    """Return the keys of the objects that a spec names; an experiment names its children."""
    if record.key.kind == "Study":
        namespace, name = record.key.namespace, record.key.name
        return [Key("Experiment", namespace, one) for one in concept_names(name, record.spec)]
    if record.key.kind == "Experiment" and "matrix" in record.spec:
        namespace, name = record.key.namespace, record.key.name
        return [Key("Experiment", namespace, cell) for cell in cell_names(name, record.spec)]
    if record.key.kind == "Experiment":
        return [child_key(record.key, node.name) for node in nodes_of(record.spec)]
    return [
        Key(kind, record.key.namespace, record.spec[name]["name"])
        for name, kind in REFERENCE_KINDS.items()
        if name in record.spec
    ]


def input_references(record: ObjectRecord) -> list[InputReference]:
    """Return the model or dictionary that an object's spec names."""
    loaded = LOADED_BY_KIND.get(record.key.kind)
    if loaded is None:
        return []
    if loaded == "model":
        return [model_reference(record.spec["model"], record.spec["prompts"])]
    return [InputReference(loaded, record.spec[loaded])]


def model_reference(model: Mapping[str, object], prompts: Mapping[str, object]) -> InputReference:
    """Return the reference to the model that reads these prompts.

    A model whose own chat template is used is another reference than the same without.
    """
    asked = {CHAT_TEMPLATE: True} if needs_template(prompts) else {}
    return InputReference("model", {**model, **asked})
