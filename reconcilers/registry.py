"""The registry of kinds: the module that plans each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from loopscope.reconcilers import (
    ablation,
    capture,
    damage,
    decomposition,
    drift,
    evidence,
    mapping,
    question,
    scoring,
    splitting,
    steering,
    trace,
)
from loopscope.reconcilers.plan import Desired, Snapshot
from loopscope.specs.pipeline import NodeName
from loopscope.specs.spec_json import ExperimentJson

DESIRED_BY_KIND: dict[str, Callable[[Snapshot], Desired]] = {
    "Capture": capture.desired,
    "Decomposition": decomposition.desired,
    "Mapping": mapping.desired,
    "Splitting": splitting.desired,
    "Evidence": evidence.desired,
    "Ablation": ablation.desired,
    "Steering": steering.desired,
    "Scoring": scoring.desired,
    "Damage": damage.desired,
    "Trace": trace.desired,
    "Drift": drift.desired,
    "Question": question.desired,
}
OWNED_BY_KIND: Mapping[str, Callable[[ExperimentJson, NodeName], Mapping[str, object]]] = {
    "Capture": capture.owned,
    "Decomposition": decomposition.owned,
    "Mapping": mapping.owned,
    "Splitting": splitting.owned,
    "Evidence": evidence.owned,
    "Ablation": ablation.owned,
    "Steering": steering.owned,
    "Scoring": scoring.owned,
    "Damage": damage.owned,
    "Trace": trace.owned,
    "Drift": drift.owned,
}
"""What an Experiment says of an object that it owns: its spec without what it refers to."""
