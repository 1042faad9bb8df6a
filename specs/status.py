"""Status: what was observed, as conditions with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

ConditionType = Literal[
    "Ready",
    "Reconciling",
    "Stalled",
    "InputsReady",
    "ArtifactsVerified",
    "PreflightsPassed",
    "DictionaryFits",
    "SourceValid",
    "Suspended",
    "RulesCurrent",
]
WORD_BY_REASON = {
    "JobRunning": "Running",
    "JobPending": "Queued",
    "RetryingLater": "Retrying",
    "Preempted": "Queued",
    "Suspended": "Suspended",
}
"""How a stage that is under way is called in one word, by the reason that it is not Ready."""
Truth = Literal["True", "False", "Unknown"]
Time = TypeVar("Time")


class ConditionJson(TypedDict, Generic[Time]):
    """A condition with the field names of the API; the time is in Unix seconds, or a date."""

    type: ConditionType
    status: Truth
    reason: str
    message: str
    observedGeneration: int
    lastTransitionTime: Time


class ArtifactJson(TypedDict):
    """A reference to an artifact with the field names of the API."""

    stage: str
    digest: str
    contentDigest: str


class StatusJson(TypedDict, Generic[Time]):
    """A status with the field names of the API; summary and inputs are those of the kind."""

    observedGeneration: int
    conditions: list[ConditionJson[Time]]
    summary: Mapping[str, Any]
    inputs: Mapping[str, Any]
    artifact: ArtifactJson | None
    madeFor: NotRequired[str]


@dataclass(frozen=True)
class Condition:
    """One observed truth about an object, with its reason."""

    type: ConditionType
    status: Truth
    reason: str
    message: str
    observed_generation: int
    last_transition_time: float = 0.0

    def to_json(self) -> ConditionJson[float]:
        """Return the condition with the field names of the API."""
        return {
            "type": self.type,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "observedGeneration": self.observed_generation,
            "lastTransitionTime": self.last_transition_time,
        }


@dataclass(frozen=True)
class ArtifactReference:
    """The artifact that makes an object Ready."""

    stage: str
    digest: str
    content_digest: str

    def to_json(self) -> ArtifactJson:
        """Return the reference with the field names of the API."""
        return {"stage": self.stage, "digest": self.digest, "contentDigest": self.content_digest}


@dataclass(frozen=True)
class Status:
    """The recorded status of an object; ``summary`` holds its headline numbers."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    artifact: ArtifactReference | None = None
    made_for: str | None = None
    """Of an object that rests on work of older rules: the digest of the spec that it was made for,
    so that an edit which is taken back finds it again."""

    def condition(self, type_: ConditionType) -> Condition | None:
        """Return the condition of this type, if it was ever observed."""
        return next((c for c in self.conditions if c.type == type_), None)

    def is_true(self, type_: ConditionType, generation: int) -> bool:
        """Whether the condition is True *for this generation*; anything older is stale."""
        condition = self.condition(type_)
        return (
            condition is not None
            and condition.status == "True"
            and condition.observed_generation == generation == self.observed_generation
        )

    @property
    def is_of_older_rules(self) -> bool:
        """Whether it rests on work that the code of now would not make so, and is left alone."""
        current = self.condition("RulesCurrent")
        return current is not None and current.status == "False"

    def to_json(self) -> StatusJson[float]:
        """Return the status with the field names of the API."""
        found: StatusJson[float] = {
            "observedGeneration": self.observed_generation,
            "conditions": [c.to_json() for c in self.conditions],
            "summary": self.summary,
            "inputs": self.inputs,
            "artifact": self.artifact.to_json() if self.artifact else None,
        }
        if self.made_for:
            found["madeFor"] = self.made_for
        return found

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Status:
        """Read a status that ``to_json`` wrote."""
        artifact = data.get("artifact")
        return Status(
            observed_generation=data.get("observedGeneration", 0),
            conditions=tuple(
                Condition(
                    c["type"],
                    c["status"],
                    c["reason"],
                    c["message"],
                    c["observedGeneration"],
                    c["lastTransitionTime"],
                )
                for c in data.get("conditions", [])
            ),
            summary=data.get("summary", {}),
            inputs=data.get("inputs", {}),
            artifact=ArtifactReference(
                artifact["stage"], artifact["digest"], artifact["contentDigest"]
            )
            if artifact
            else None,
            made_for=data.get("madeFor"),
        )


def with_transition_times(
    new: Iterable[Condition], old: Iterable[Condition], now: float
) -> tuple[Condition, ...]:
    """Keep the old transition time of each condition whose status did not change."""
    before = {c.type: c for c in old}
    return tuple(
        replace(
            c,
            last_transition_time=before[c.type].last_transition_time
            if c.type in before and before[c.type].status == c.status
            else now,
        )
        for c in new
    )
