"""A sweep: an Experiment with a matrix, which owns an Experiment for each combination."""

from __future__ import annotations

from loopscope.reconcilers.owned import of_older_rules, taken_name, to_apply
from loopscope.reconcilers.plan import ChildManifest, Observed, Plan, PlannedEvent, Snapshot
from loopscope.reconcilers.stage import condition, plan_stage, timed
from loopscope.specs.keys import Key
from loopscope.specs.status import Condition, Status
from loopscope.specs.sweep import cells
from loopscope.state.records import ObjectRecord

BEST_MAX = 3
"""How many cells the status names as the best."""
SWEEP_LABEL = "loopscope.dev/sweep"
AXIS_LABEL_PREFIX = "sweep.loopscope.dev/"
_VERDICTS = {"Supported": 0, "NoPracticalDifference": 1, "Inconclusive": 2, "Refuted": 3}
_GATES = {"GO": 0, "INCONCLUSIVE": 1, "NO-GO": 2}
_TOLD = ("gate", "percentile", "verdict", "contrast", "estimate")


def plan(snapshot: Snapshot) -> Plan:
    """Return the cells that the sweep needs, and its status from theirs."""
    taken = taken_name(snapshot)
    if taken is not None:
        return plan_stage(snapshot, taken, Observed())
    wanted = cell_manifests(snapshot.object)
    apply, remove = to_apply(snapshot, wanted)
    existing = {child.key: child for child in snapshot.children}
    found = [existing.get(child.key) for child in wanted]
    status = Status(
        observed_generation=snapshot.object.generation,
        conditions=timed(
            snapshot,
            *_conditions(snapshot, found, fresh=not apply and not remove),
            *of_older_rules(
                snapshot, {child.key.name: existing.get(child.key) for child in wanted}
            ),
        ),
        summary=_summary(snapshot.object.key.name, found),
    )
    return Plan(status=status, apply=apply, remove=remove, events=_events(snapshot, status))


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


def inherited_labels(record: ObjectRecord) -> dict[str, str]:
    """Return the labels that a cell's stages carry as well: one selector finds both."""
    return {
        name: value
        for name, value in record.labels.items()
        if record.owner is not None and (name == SWEEP_LABEL or name.startswith(AXIS_LABEL_PREFIX))
    }


def _conditions(
    snapshot: Snapshot, found: list[ObjectRecord | None], *, fresh: bool
) -> list[Condition]:
    done = sum(1 for cell in found if cell is not None and cell.ready)
    message = f"{done} of {len(found)} cells are ready"
    stalled = [cell for cell in found if cell is not None and cell.stalled]
    if fresh and done == len(found):
        return [condition(snapshot, "Ready", "True", "ChildrenReady", message)]
    if fresh and stalled:
        why = stalled[0].status.condition("Stalled")
        more = f" (and {len(stalled) - 1} more)" if len(stalled) > 1 else ""
        reason = f": {why.message}" if why else ""
        message = f"{message}; {stalled[0].key.name}{more} needs a human{reason}"
        return [
            condition(snapshot, "Ready", "False", "ChildStalled", message),
            condition(snapshot, "Stalled", "True", "ChildStalled", message),
        ]
    message = message if fresh else "applying the cells"
    return [
        condition(snapshot, "Ready", "False", "ChildrenNotReady", message),
        condition(snapshot, "Reconciling", "True", "ChildrenNotReady", message),
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


def _events(snapshot: Snapshot, status: Status) -> tuple[PlannedEvent, ...]:
    ready = status.condition("Ready")
    if ready is not None and ready.status == "True" and not snapshot.object.ready:
        return (PlannedEvent("Normal", "Ready", ready.message),)
    return ()
