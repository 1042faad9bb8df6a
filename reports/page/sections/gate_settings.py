"""The gate at another cosine, correlation or q: a table, and all combinations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.specs.artifacts.gate import Gate
from loopscope.specs.artifacts.mapping import GATE, GATE_SETTINGS
from loopscope.specs.json_values import Json
from loopscope.views.experiment import ExperimentView
from loopscope.views.gate_sensitivity import (
    GateRange,
    GateSetting,
    gate_by_settings,
    steering_note,
)

AXES = (
    ("minCosine", "min_cosine", "mapping"),
    ("minCorrelation", "min_correlation", "mapping"),
    ("maxQ", "max_q", "selection"),
)
"""A field of the spec, its column, and the part of the spec that it stands in."""


@dataclass(frozen=True)
class MovedAlone:
    """The gate where one field has another value and everything else is as declared."""

    field: str
    value: float
    part: str
    is_declared: bool
    range: GateRange
    note: str


@dataclass(frozen=True)
class GateSettings:
    """The gate at other settings; empty ``moved``: the mapping was not asked for them.

    ``data`` is what the page's script looks up: every combination in the order of the axes.
    """

    moved: list[MovedAlone]
    data: Json


def gate_settings(view: ExperimentView) -> GateSettings:
    """Return what the mapping stored of other settings, judged by the gate's own rule."""
    stage = view.stage("mapping")
    if stage.artifact is None or GATE_SETTINGS.name not in stage.artifact.files:
        return GateSettings([], None)
    gate, policy = stage.document(GATE), str(stage.spec["gate"]["policy"])
    declared = {
        "minCosine": stage.spec["minCosine"],
        "minCorrelation": stage.spec["minCorrelation"],
        "maxQ": view.stage("coarse").spec["selection"]["maxQ"],
    }
    found = gate_by_settings(gate, stage.table(GATE_SETTINGS), declared)
    if not found:
        return GateSettings([], None)
    own = next(one for one in found if one.is_declared)
    moved = [
        _moved(one, field, column, part, gate, policy)
        for field, column, part in AXES
        if len(_values(found, column)) > 1
        for one in found
        if all(
            getattr(one, other) == getattr(own, other) for _, other, _ in AXES if other != column
        )
    ]
    return GateSettings(moved, _data(found, own, gate, policy))


def _moved(
    one: GateSetting, field: str, column: str, part: str, gate: Gate, policy: str
) -> MovedAlone:
    found = one.at(gate["minSubfeatures"])
    value = float(getattr(one, column))
    return MovedAlone(
        field, value, part, one.is_declared, found, steering_note(found, gate, policy)
    )


def _values(found: Sequence[GateSetting], column: str) -> list[float]:
    return sorted({float(getattr(one, column)) for one in found})


def _data(found: Sequence[GateSetting], own: GateSetting, gate: Gate, policy: str) -> Json:
    notes: list[Json] = [""]

    def packed(one: GateRange) -> Json:
        note = steering_note(one, gate, policy)
        if note not in notes:
            notes.append(note)
        return [one.low, one.high, one.verdict, notes.index(note), one.anchor, len(one.children)]

    at: list[Json] = [[packed(one) for one in setting.ranges] for setting in found]
    axes: list[Json] = []
    for field, column, part in AXES:
        values = _values(found, column)
        declared = values.index(float(getattr(own, column)))
        axes.append({"field": field, "part": part, "values": [*values], "declared": declared})
    return {"axes": axes, "notes": notes, "at": at, "count": gate["minSubfeatures"]}
