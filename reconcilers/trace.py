"""Trace: the texts of a steering token by token, and where the stream went on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from loopscope.reconcilers.after_mapping import after_mapping
from loopscope.reconcilers.after_steering import (
    NothingSteered,
    after_steering,
    how_it_steers,
    narrowed,
)
from loopscope.reconcilers.plan import Answered, Blocked, Desired, Snapshot, Wanted
from loopscope.reconcilers.stage import reference_json
from loopscope.reconcilers.steering import directions_of
from loopscope.specs.actions import Action
from loopscope.specs.artifacts.steering import ARMS, SAMPLES
from loopscope.specs.payloads.trace import TracePayload
from loopscope.specs.pipeline import NodeName
from loopscope.specs.spec_json import ExperimentJson, TraceJson


def desired(snapshot: Snapshot) -> Desired:
    """Return the trace that the spec asks for, once all that it names is Ready."""
    found = after_mapping(snapshot)
    if isinstance(found, Blocked):
        return found
    steered = after_steering(snapshot, found)
    if isinstance(steered, Blocked):
        return steered
    if isinstance(steered, NothingSteered):
        message = f"there is no text to be read: {steered.why}"
        return Answered("NothingSteered", message, {"texts": 0, "reason": message})
    spec = cast(TraceJson, snapshot.object.spec)
    work = narrowed(steered.work)
    payload: TracePayload = {
        "openings": spec["openings"],
        "work": work,
        "steered": reference_json(steered.made),
    }
    declared = {
        **how_it_steers(work, found),
        "mapping": directions_of(found.mapped),
        "followed": spec["openings"],
        "openings": work["openings"],
        "arms": work["arms"],
        "model": work["model"]["identity"],
        "texts": [steered.made.files[table.name].sha256 for table in (SAMPLES, ARMS)],
    }
    return Wanted(Action("trace", declared, payload), steered.inputs(found))


def owned(experiment: ExperimentJson, _: NodeName) -> Mapping[str, object]:
    """Return the spec, without its references, of the trace that an experiment owns."""
    return experiment["trace"]
