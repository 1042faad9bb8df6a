"""Conditions of ``--for``: an object that exists or is gone, a condition, a value at a path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from loopscope.specs.status import ConditionType, Truth
from loopscope.state.records import ObjectRecord

Form = Literal["create", "delete", "condition", "jsonpath"]
EXPECTED = (
    "--for=condition=TYPE or condition=TYPE=STATUS with TYPE in "
    f"{', '.join(get_args(ConditionType))} and STATUS in {', '.join(get_args(Truth))}; "
    "--for=jsonpath={.path}=VALUE; --for=create; or --for=delete"
)


@dataclass(frozen=True)
class Awaited:
    """What is waited for. ``value``: None is any value at the path."""

    form: Form
    condition: ConditionType | None = None
    status: Truth = "True"
    path: str = ""
    value: str | None = None

    @property
    def words(self) -> str:
        """What is printed behind the object when it came true."""
        if self.form == "create":
            return "created"
        if self.condition is not None:
            return self.condition + ("" if self.status == "True" else f" {self.status}")
        return f"{self.path} is {self.value}" if self.value is not None else f"{self.path} is there"

    @property
    def survives_stall(self) -> bool:
        """Whether it may still come true of an object at which a human must act."""
        return self.form in ("create", "delete") or self.condition == "Stalled"

    def has_status(self, record: ObjectRecord) -> bool:
        """Whether the condition has the status for the current generation.

        A condition that was never observed is False of an object that was looked at since its last
        edit: none is recorded of what did not happen.
        """
        assert self.condition is not None  # only asked of conditions
        found = record.status.condition(self.condition)
        if record.status.observed_generation != record.generation:
            return False
        if found is None:
            return self.status == "False"
        return found.observed_generation == record.generation and found.status == self.status


def read_awaited(text: str) -> Awaited:
    """Read the value of ``--for``. Raises ValueError with what was expected."""
    form, _, rest = text.partition("=")
    match form:
        case "create" | "delete" if not rest:
            return Awaited(form)
        case "condition":
            return _condition(rest)
        case "jsonpath" if rest:
            return _path(rest)
    raise ValueError(f"expected {EXPECTED}; found {text!r}")


def _condition(text: str) -> Awaited:
    name, _, status = text.partition("=")
    conditions = {known.lower(): known for known in get_args(ConditionType)}
    truths = {known.lower(): known for known in get_args(Truth)}
    if name.lower() not in conditions or (status or "true").lower() not in truths:
        raise ValueError(f"expected {EXPECTED}; found {'condition=' + text!r}")
    status = truths[(status or "true").lower()]
    return Awaited("condition", conditions[name.lower()], status)


def _path(text: str) -> Awaited:
    """Read ``{.a.b}=value`` or ``.a.b=value``; without a value any will do."""
    if text.startswith("{"):
        inside, closed, after = text[1:].rpartition("}")
        if not closed or (after and not after.startswith("=")):
            raise ValueError(f"expected jsonpath={{.path}}=VALUE; found {'jsonpath=' + text!r}")
        return Awaited("jsonpath", path=inside, value=after[1:] if after else None)
    path, equals, value = text.partition("=")
    return Awaited("jsonpath", path=path, value=value if equals else None)
