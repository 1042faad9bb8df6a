"""Which objects and which model or dictionary a spec names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.specs.sweep import cell_names
from loopscope.state.records import ObjectRecord

STAGE_KINDS = {
    "capture": "Capture",
    "coarse": "Decomposition",
    "fine": "Decomposition",
    "mapping": "Mapping",
    "steering": "Steering",
}
"""The children of an experiment, ``<name>-<stage>``, in the order of the work."""

_REFERENCE_FIELDS = {
    "captureRef": "Capture",
    "coarseRef": "Decomposition",
    "fineRef": "Decomposition",
    "mappingRef": "Mapping",
}


@dataclass(frozen=True)
class InputReference:
    """A model or dictionary as the spec names it."""

    kind: Literal["model", "dictionary"]
    reference: dict[str, Any]

    @property
    def digest(self) -> str:
        """The name under which its observation is kept."""
        return digest({"kind": self.kind, "reference": self.reference})


def child_key(experiment: Key, stage: str) -> Key:
    """Return the key of an experiment's child."""
    return Key(STAGE_KINDS[stage], experiment.namespace, f"{experiment.name}-{stage}")


def object_references(record: ObjectRecord) -> list[Key]:
    """Return the keys of the objects that a spec names; an experiment names its children."""
    if record.key.kind == "Experiment" and "matrix" in record.spec:
        namespace, name = record.key.namespace, record.key.name
        return [Key("Experiment", namespace, cell) for cell in cell_names(name, record.spec)]
    if record.key.kind == "Experiment":
        return [
            child_key(record.key, stage)
            for stage in STAGE_KINDS
            if stage != "steering" or "steering" in record.spec
        ]
    return [
        Key(kind, record.key.namespace, record.spec[name]["name"])
        for name, kind in _REFERENCE_FIELDS.items()
        if name in record.spec
    ]


def input_references(record: ObjectRecord) -> list[InputReference]:
    """Return the model and dictionary that a Capture or Decomposition names."""
    match record.key.kind:
        case "Capture":
            return [InputReference("model", record.spec["model"])]
        case "Decomposition":
            return [InputReference("dictionary", record.spec["dictionary"])]
        case _:
            return []
