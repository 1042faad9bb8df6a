"""A study: owns an Experiment for each of its concepts, and counts what came of them.

The pooled answer is no part of the status: it is a pure function of these experiments' statuses,
which ``views.studies`` computes whenever it is asked for.
"""

from __future__ import annotations

from loopscope.reconcilers.cells import plan_of_cells
from loopscope.reconcilers.plan import ChildManifest, Plan, Snapshot
from loopscope.specs.keys import FAMILY_LABEL, STUDY_LABEL, Key
from loopscope.specs.study import concept_experiments
from loopscope.state.records import ObjectRecord


def plan(snapshot: Snapshot) -> Plan:
    """Return the experiments that the study needs, and its status from theirs."""
    return plan_of_cells(snapshot, concept_manifests(snapshot.object), _summary, "concepts")


def concept_manifests(record: ObjectRecord) -> list[ChildManifest]:
    """Return the experiments that a study's spec stands for."""
    key = record.key
    return [
        ChildManifest(
            Key("Experiment", key.namespace, f"{key.name}-{one.name}"),
            one.spec,
            {STUDY_LABEL: key.name, FAMILY_LABEL: one.family},
        )
        for one in concept_experiments(record.spec)
    ]


def _summary(_: str, found: list[ObjectRecord | None]) -> dict[str, object]:
    known = [one for one in found if one is not None]
    answers = [one.status.summary for one in known if one.ready]
    untestable = sum(1 for one in answers if one.get("verdict") == "NotTestable")
    return {
        "concepts": len(found),
        "ready": len(answers),
        "stalled": sum(1 for one in known if one.stalled),
        "testable": len(answers) - untestable,
        "notTestable": untestable,
        "gateOpen": sum(1 for one in answers if one.get("gate") == "GO"),
    }
