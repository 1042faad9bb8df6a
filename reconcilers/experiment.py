"""Experiment: one owned object for each stage, and the state of the whole."""

from __future__ import annotations

from typing import cast

from loopscope.reconcilers import study, sweep
from loopscope.reconcilers.cells import inherited_labels
from loopscope.reconcilers.owned import of_older_rules, taken_name, to_apply
from loopscope.reconcilers.plan import ChildManifest, Observed, Plan, PlannedEvent, Snapshot
from loopscope.reconcilers.references import child_key
from loopscope.reconcilers.registry import OWNED_BY_KIND
from loopscope.reconcilers.stage import condition, plan_stage, suspended, timed
from loopscope.specs.json_values import JsonObject
from loopscope.specs.pipeline import Node, nodes_of
from loopscope.specs.spec_json import ExperimentJson
from loopscope.specs.status import Condition, Status
from loopscope.state.records import ObjectRecord


def plan(snapshot: Snapshot) -> Plan:
    """Return the children that the experiment needs, and its status from theirs.

    The same for an object that owns experiments.
    """
    record = snapshot.object
    if record.key.kind == "Study":
        return study.plan(snapshot)
    if "matrix" in record.spec:
        return sweep.plan(snapshot)
    taken = taken_name(snapshot)
    if taken is not None:
        return plan_stage(snapshot, taken, Observed())
    wanted = child_manifests(record)
    apply, remove = to_apply(snapshot, wanted)
    existing = {child.key: child for child in snapshot.children}
    stages: dict[str, ObjectRecord | None] = {
        node.name: existing.get(child_key(record.key, node.name)) for node in nodes_of(record.spec)
    }
    fresh = not apply and not remove
    status = Status(
        observed_generation=record.generation,
        conditions=timed(
            snapshot,
            *_conditions(snapshot, stages, fresh),
            *of_older_rules(snapshot, stages),
        ),
        summary=_summary(stages),
    )
    return Plan(status=status, apply=apply, remove=remove, events=_events(snapshot, status))


def owned_experiments(record: ObjectRecord) -> list[ChildManifest] | None:
    """Return the experiments that a sweep or a study stands for; None for what owns stages."""
    if record.key.kind == "Study":
        return study.concept_manifests(record)
    return sweep.cell_manifests(record) if "matrix" in record.spec else None


def child_manifests(record: ObjectRecord) -> list[ChildManifest]:
    """Return the children that an experiment's spec stands for."""
    spec, name = cast(ExperimentJson, record.spec), record.key.name
    labels = inherited_labels(record)
    return [
        ChildManifest(
            child_key(record.key, node.name),
            cast(
                JsonObject,
                {**OWNED_BY_KIND[node.kind](spec, node.name), **_references(node, name)},
            ),
            labels,
        )
        for node in nodes_of(record.spec)
    ]


_STEERING_SUMMARY = (
    "verdict", "reason", "contrast", "estimate", "low", "high", "n", "p", "primary",
)  # fmt: skip


def _references(node: Node, experiment: str) -> JsonObject:
    return {field: {"name": f"{experiment}-{name}"} for field, name in node.upstream.items()}


def _conditions(
    snapshot: Snapshot, stages: dict[str, ObjectRecord | None], fresh: bool
) -> list[Condition]:
    stalled = {n: c for n, c in stages.items() if c is not None and c.stalled}
    waiting = [n for n, c in stages.items() if c is None or not c.ready]
    if fresh and not waiting:
        return [condition(snapshot, "Ready", "True", "ChildrenReady", "all stages are done")]
    if fresh and stalled:
        name, child = next(iter(stalled.items()))
        why = child.status.condition("Stalled")
        message = f"{name} needs a human: {why.reason}: {why.message}" if why else name
        return [
            condition(snapshot, "Ready", "False", "ChildStalled", message),
            condition(snapshot, "Stalled", "True", "ChildStalled", message),
        ]
    message = _first_words(stages, waiting) if fresh else "applying the stages"
    return [
        condition(snapshot, "Ready", "False", "ChildrenNotReady", message),
        condition(snapshot, "Reconciling", "True", "ChildrenNotReady", message),
        *suspended(snapshot),
    ]


def _first_words(stages: dict[str, ObjectRecord | None], waiting: list[str]) -> str:
    """Return what the first unfinished stage is doing: that is what everything waits for."""
    child = stages[waiting[0]]
    ready = child.status.condition("Ready") if child is not None else None
    return f"{waiting[0]}: {ready.message}" if ready else f"{waiting[0]}: not started"


def _summary(stages: dict[str, ObjectRecord | None]) -> dict[str, object]:
    summary: dict[str, object] = {
        "stages": {name: child.stage_word if child else "Pending" for name, child in stages.items()}
    }
    mapping, steering = stages.get("mapping"), stages.get("steering")
    if mapping is not None and mapping.ready:
        found = mapping.status.summary
        summary["gate"] = found.get("verdict")
        for name, value in (
            ("percentile", found.get("percentile")),
            ("confirmation", found.get("confirmation")),
            ("anchor", found.get("anchor")),
            ("anchor_children", found.get("children")),
            ("anchor_rank", found.get("anchor_rank")),
            ("gate_reason", found.get("reason")),
        ):
            if value is not None:
                summary[name] = value
    if steering is not None and steering.ready:
        for name in _STEERING_SUMMARY:
            if name in steering.status.summary:
                summary[name] = steering.status.summary[name]
    return summary


def _events(snapshot: Snapshot, status: Status) -> tuple[PlannedEvent, ...]:
    ready = status.condition("Ready")
    if ready is not None and ready.status == "True" and not snapshot.object.ready:
        return (PlannedEvent("Normal", "Ready", "all stages are done"),)
    return ()
