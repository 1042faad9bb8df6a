"""Cells: Experiments that one object owns, those of a sweep or of a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loopscope.reconcilers.owned import of_older_rules, taken_name, to_apply
from loopscope.reconcilers.plan import ChildManifest, Observed, Plan, PlannedEvent, Snapshot
from loopscope.reconcilers.stage import condition, plan_stage, timed
from loopscope.specs.keys import AXIS_LABEL_PREFIX, FAMILY_LABEL, STUDY_LABEL, SWEEP_LABEL
from loopscope.specs.status import Condition, Status
from loopscope.state.records import ObjectRecord

Summary = Callable[[str, list[ObjectRecord | None]], dict[str, object]]
"""From the owner's name and its cells, None for one that is not there, to the owner's summary."""


def plan_of_cells(
    snapshot: Snapshot, wanted: Sequence[ChildManifest], summary: Summary, words: str
) -> Plan:
    """Return the cells that an owner needs, and its status from theirs; ``words`` name them."""
    taken = taken_name(snapshot)
    if taken is not None:
        return plan_stage(snapshot, taken, Observed())
    apply, remove = to_apply(snapshot, wanted)
    existing = {child.key: child for child in snapshot.children}
    found = [existing.get(child.key) for child in wanted]
    status = Status(
        observed_generation=snapshot.object.generation,
        conditions=timed(
            snapshot,
            *_conditions(snapshot, found, words, fresh=not apply and not remove),
            *of_older_rules(
                snapshot, {child.key.name: existing.get(child.key) for child in wanted}
            ),
        ),
        summary=summary(snapshot.object.key.name, found),
    )
    return Plan(status=status, apply=apply, remove=remove, events=_events(snapshot, status))


def inherited_labels(record: ObjectRecord) -> dict[str, str]:
    """Return the labels that a cell's stages carry as well: one selector finds both."""
    return {
        name: value
        for name, value in record.labels.items()
        if record.owner is not None
        and (name in (SWEEP_LABEL, STUDY_LABEL, FAMILY_LABEL) or name.startswith(AXIS_LABEL_PREFIX))
    }


def _conditions(
    snapshot: Snapshot, found: list[ObjectRecord | None], words: str, *, fresh: bool
) -> list[Condition]:
    done = sum(1 for cell in found if cell is not None and cell.ready)
    message = f"{done} of {len(found)} {words} are ready"
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
    message = message if fresh else f"applying the {words}"
    return [
        condition(snapshot, "Ready", "False", "ChildrenNotReady", message),
        condition(snapshot, "Reconciling", "True", "ChildrenNotReady", message),
    ]


def _events(snapshot: Snapshot, status: Status) -> tuple[PlannedEvent, ...]:
    ready = status.condition("Ready")
    if ready is not None and ready.status == "True" and not snapshot.object.ready:
        return (PlannedEvent("Normal", "Ready", ready.message),)
    return ()
