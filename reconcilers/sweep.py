"""A sweep: an Experiment with a matrix, which owns an Experiment for each combination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from loopscope.reconcilers.cells import plan_of_cells
from loopscope.reconcilers.holding import Held, held_over
from loopscope.reconcilers.plan import ChildManifest, Plan, Snapshot
from loopscope.specs.json_values import Json
from loopscope.specs.keys import AXIS_LABEL_PREFIX, SWEEP_LABEL, Key
from loopscope.specs.sweep import HOLD_OVER, cells, combinations, matrix_of
from loopscope.state.records import ObjectRecord

BEST_MAX = 3
"""How many cells the status names as the best."""
_VERDICTS = {"Supported": 0, "NoPracticalDifference": 1, "Inconclusive": 2, "Refuted": 3}
_GATES = {"GO": 0, "INCONCLUSIVE": 1, "NO-GO": 2}
_TOLD = ("gate", "percentile", "verdict", "contrast", "estimate")


def plan(snapshot: Snapshot) -> Plan:
    """Return the cells that the sweep needs, and its status from theirs."""
    spec = snapshot.object.spec

    def summary(name: str, found: list[ObjectRecord | None]) -> dict[str, object]:
        return {**_summary(name, found), **_held(spec, found)}

    return plan_of_cells(snapshot, cell_manifests(snapshot.object), summary, "cells")


def cell_manifests(record: ObjectRecord) -> list[ChildManifest]:
    """Return the experiments that a sweep's spec stands for."""
    key = record.key
    return [
        ChildManifest(
            Key("Experiment", key.namespace, f"{key.name}-{cell.suffix}"),
            cell.spec,
            {
                SWEEP_LABEL: key.name,
                **{f"{AXIS_LABEL_PREFIX}{axis}": value for axis, value in cell.values},
            },
        )
        for cell in cells(record.spec)
    ]


def _summary(name: str, found: list[ObjectRecord | None]) -> dict[str, object]:
    known = [cell for cell in found if cell is not None]
    ready = [cell for cell in known if cell.ready]
    best = sorted((cell for cell in ready if "gate" in cell.status.summary), key=_rank)
    return {
        "cells": len(found),
        "ready": len(ready),
        "stalled": sum(1 for cell in known if cell.stalled),
        "best": [
            {
                "cell": cell.key.name.removeprefix(f"{name}-"),
                **{
                    what: cell.status.summary[what]
                    for what in _TOLD
                    if cell.status.summary.get(what) is not None
                },
            }
            for cell in best[:BEST_MAX]
        ],
    }


def _held(spec: Mapping[str, Json], found: Sequence[ObjectRecord | None]) -> dict[str, list[Held]]:
    """Return where the verdict holds over the axes that the spec asks about; empty without any."""
    axes = cast("list[str]", spec.get(HOLD_OVER) or [])
    if not axes:
        return {}
    words = [
        str(cell.status.summary["verdict"])
        if cell is not None and cell.ready and "verdict" in cell.status.summary
        else None
        for cell in found
    ]
    return {"holds": held_over(axes, [*combinations(matrix_of(spec))], words)}


def _rank(cell: ObjectRecord) -> tuple[int, int, float, float, str]:
    """Order cells: verdict, gate, estimate, percentile of the gate, name."""
    summary = cell.status.summary
    return (
        _VERDICTS.get(str(summary.get("verdict")), len(_VERDICTS)),
        _GATES.get(str(summary.get("gate")), len(_GATES)),
        -_number(summary.get("estimate")),
        -_number(summary.get("percentile")),
        cell.key.name,
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("-inf")
