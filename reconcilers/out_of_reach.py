"""The plan of an object whose artifacts cannot be looked at now: to say so, and no more."""

from __future__ import annotations

from dataclasses import replace

from loopscope.reconcilers.plan import Failed, Plan, PlannedEvent, Snapshot
from loopscope.reconcilers.stage import condition, timed

REASON = "ArtifactsUnreachable"


def plan_out_of_reach(snapshot: Snapshot, why: str) -> Plan:
    """Return a plan that says why an object that is not Ready stays so.

    One that is Ready stays it, since nothing was learned of its artifact. What an object wants and
    the job that makes it stand.
    """
    record = snapshot.object
    again = Failed(REASON, terminal=False)
    if record.ready:
        return Plan(status=record.status, wanted_digest=record.wanted_digest, result=again)
    kept = [
        one
        for one in record.status.conditions
        if one.type not in ("Ready", "Reconciling", "Stalled", "SourceValid")
    ]
    conditions = timed(
        snapshot,
        condition(snapshot, "Ready", "False", REASON, why),
        condition(snapshot, "Reconciling", "True", REASON, why),
        *kept,
    )
    before = record.status.condition("Ready")
    is_known = before is not None and (before.reason, before.message) == (REASON, why)
    return Plan(
        status=replace(record.status, conditions=conditions),
        wanted_digest=record.wanted_digest,
        events=() if is_known else (PlannedEvent("Warning", REASON, why),),
        result=again,
    )
