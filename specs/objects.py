"""Objects as people apply them: kind, metadata and spec, before they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, field_validator

from specs.fields import ObjectName, Spec
from specs.keys import PROTECT_ANNOTATION, SOURCE_ANNOTATION, Key

LabelValue = Annotated[
    str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")
]
LabelKey = Annotated[
    str, Field(max_length=317, pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
]

__all__ = ["PROTECT_ANNOTATION", "SOURCE_ANNOTATION", "Key", "Metadata", "ObjectManifest"]


class Metadata(Spec):
    """The part of an object's metadata that people write."""

    name: ObjectName
    """Name, unique per kind and namespace (RFC 1123: lower-case letters, digits, ``-``)."""
    namespace: ObjectName = "default"
    """Namespace."""
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels to select by."""
    annotations: dict[LabelKey, Annotated[str, Field(max_length=4096)]] = Field(
        default_factory=dict
    )
    """Free notes; ``loopscope.dev/protect: "true"`` refuses deletion."""

    @field_validator("name")
    @classmethod
    def _leaves_room_for_children(cls, name: str) -> str:
        if len(name) > 52:
            raise ValueError("at most 52 characters, so that '<name>-steering' stays a valid name")
        return name


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

    def canonical_spec(self) -> dict[str, Any]:
        """The defaulted spec as JSON values."""
        return self.spec.canonical()
