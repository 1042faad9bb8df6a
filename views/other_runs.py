"""Other runs of the same question: experiments whose spec differs from one in a choice alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from loopscope.state.records import ObjectRecord

Choice = Literal["lexicon", "strength", "sampling", "openings", "anchor"]
AXIS_OF: Mapping[str, Choice] = {
    "steering.sampling": "sampling",
    "steering.prompts": "openings",
    "steering.strengths": "strength",
    "steering.strengthUnit": "strength",
    "steering.neutralText": "strength",
    "steering.lexicon": "lexicon",
    "steering.siblings": "lexicon",
    "selection": "anchor",
    "mapping": "anchor",
    "gate": "anchor",
}
"""Fields of an Experiment by the choice that they are part of."""
BESIDE = ("evidence", "trace", "ablation", "scoring", "damage", "drift", "matrix")
"""Parts on which no verdict rests."""
_COSTS_NOTHING = ("policy", "sensitivity")


@dataclass(frozen=True)
class OtherRun:
    """An experiment that differs on one axis alone, with what it came to.

    ``setting`` are the parts of its spec on that axis, by field; ``summary`` is its status's.
    """

    name: str
    axis: Choice
    setting: Mapping[str, Any]
    summary: Mapping[str, Any]


def other_runs(own: ObjectRecord, known: Iterable[ObjectRecord]) -> tuple[OtherRun, ...]:
    """Return the runs of the same question among ``known`` that came to a verdict, by name."""
    found = []
    for record in sorted(known, key=lambda one: one.key.name):
        if record.key == own.key or not record.ready or "verdict" not in record.status.summary:
            continue
        fields = _different(own.spec, record.spec)
        axes = {AXIS_OF.get(field) for field in fields}
        axis = axes.pop() if len(axes) == 1 else None
        if axis is not None:
            setting = {field: _at(record.spec, field) for field in fields}
            found.append(OtherRun(record.key.name, axis, setting, record.status.summary))
    return tuple(found)


def _different(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the fields in which two specs differ, those of ``steering`` each for itself."""
    found = []
    for name in sorted({*own, *other} - set(BESIDE)):
        mine, theirs = own.get(name), other.get(name)
        if mine == theirs:
            continue
        if name == "steering" and mine is not None and theirs is not None:
            fields = sorted({*mine, *theirs})
            found += [f"{name}.{one}" for one in fields if mine.get(one) != theirs.get(one)]
        elif name != "gate" or _rules(mine) != _rules(theirs):
            found.append(name)
    return found


def _rules(gate: Mapping[str, Any] | None) -> dict[str, object]:
    """Return what of a gate's rules bears on an answer."""
    return {name: value for name, value in (gate or {}).items() if name not in _COSTS_NOTHING}


def _at(spec: Mapping[str, Any], field: str) -> object:
    part, _, name = field.partition(".")
    return spec[part].get(name) if name else spec.get(part)
