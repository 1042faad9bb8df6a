"""Objects as people apply them: kind, metadata and spec, before they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from loopscope.specs.fields import ObjectName, Spec
from loopscope.specs.json_values import JsonObject
from loopscope.specs.keys import (
    ANNOTATIONS,
    MEMORY_ANNOTATION,
    OWN_PREFIX,
    PARALLELISM_ANNOTATION,
    PIN_ANNOTATION,
    PROTECT_ANNOTATION,
    Key,
)
from loopscope.specs.parallelism import WORKERS_MAX, worker_count
from loopscope.specs.sizes import byte_count
from loopscope.specs.suggest import closest

LabelValue = Annotated[
    str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")
]
LabelKey = Annotated[
    str, Field(max_length=317, pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
]

NAME_CHARACTERS_MAX = 52
"""Of a name that people choose; names of owned objects have 63."""


class Metadata(Spec):
    """The part of an object's metadata that people write."""

    name: Annotated[ObjectName, Field(json_schema_extra={"maxLength": NAME_CHARACTERS_MAX})]
    """Name, unique per kind and namespace (RFC 1123: lower-case letters, digits, ``-``)."""
    namespace: ObjectName = "default"
    """Namespace."""
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels to select by."""
    annotations: dict[LabelKey, Annotated[str, Field(max_length=4096)]] = Field(
        default_factory=dict
    )
    """Free notes; ``loopscope.dev/protect: "true"`` refuses deletion, ``loopscope.dev/pin: "true"``
    keeps every artifact that was made for the object, ``loopscope.dev/priority`` names a priority
    class of the queue, ``loopscope.dev/memory: 8GiB`` says what a job takes,
    ``loopscope.dev/parallelism: "3"`` how many workers make the shards of a capture at once;
    ``loopscope.dev/author`` and ``loopscope.dev/license`` are named in the bundle."""

    @field_validator("name")
    @classmethod
    def _leaves_room_for_children(cls, name: str, info: ValidationInfo) -> str:
        is_child = bool(info.context and info.context.get("exported"))
        if len(name) > NAME_CHARACTERS_MAX and not is_child:
            raise ValueError(
                f"expected at most {NAME_CHARACTERS_MAX} characters, so that '<name>-steering' "
                f"stays a valid name; found {len(name)}"
            )
        return name

    @field_validator("annotations")
    @classmethod
    def _check_ours(cls, annotations: dict[str, str]) -> dict[str, str]:
        """Refuse what would be kept and never heeded: a shield that shields nothing above all."""
        for name, value in annotations.items():
            if name.startswith(OWN_PREFIX) and name not in ANNOTATIONS:
                close = closest(name, ANNOTATIONS)
                hint = f"did you mean {close}?" if close else f"known: {', '.join(ANNOTATIONS)}"
                raise ValueError(f"{name} is not known; {hint}")
            if name in (PROTECT_ANNOTATION, PIN_ANNOTATION) and value not in ("true", "false"):
                raise ValueError(f'{name}: expected "true" or "false", found {value!r}')
        size = annotations.get(MEMORY_ANNOTATION)
        if size is not None and byte_count(size) is None:
            raise ValueError(
                f"{MEMORY_ANNOTATION}: {size!r} is not a size; expected as 500MB, 8GiB"
            )
        workers = annotations.get(PARALLELISM_ANNOTATION)
        if workers is not None and worker_count(workers) is None:
            raise ValueError(
                f"{PARALLELISM_ANNOTATION}: {workers!r} is not a number of workers; expected as "
                f'"3", from "1" to "{WORKERS_MAX}"'
            )
        return annotations


@dataclass(frozen=True)
class ObjectManifest:
    """One validated YAML document: what someone wants to exist."""

    kind: str
    metadata: Metadata
    spec: Spec

    @property
    def key(self) -> Key:
        """The object's name."""
        return Key(self.kind, self.metadata.namespace, self.metadata.name)

    def canonical_spec(self) -> JsonObject:
        """The defaulted spec as JSON values."""
        return self.spec.canonical()
