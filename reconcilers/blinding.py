"""Blinding: a steering below the registered number is done, and what came of it is not shown.

Its status then has no artifact, as that of a steering which had nothing to do: so nothing rests on
its texts, and no view, page or table finds any. The artifact stays, since the object wants it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from loopscope.specs.blinding import BLINDED, Blinding, blinding_words, is_reached
from loopscope.specs.keys import BLINDED_REASON

if TYPE_CHECKING:
    from loopscope.reconcilers.plan import Observed, Plan, Wanted
    from loopscope.specs.payloads.steering import SteeringMetrics, SteeringPayload
    from loopscope.specs.registration import InForce


def withheld(plan: Plan, wanted: Wanted, observed: Observed) -> Plan:
    """Return the plan of a stage, without what came of it where that is still blinded."""
    found = (
        None if observed.registered is None else _blinding(wanted, observed, observed.registered)
    )
    if found is None or plan.status.artifact is None:
        return plan
    words = blinding_words(found)
    status = replace(
        plan.status,
        artifact=None,
        summary={BLINDED: found, "n": found["openings"], "reason": words},
        conditions=tuple(
            replace(one, reason=BLINDED_REASON, message=words) if one.type == "Ready" else one
            for one in plan.status.conditions
        ),
    )
    return replace(plan, status=status)


def _blinding(wanted: Wanted, observed: Observed, registered: InForce) -> Blinding | None:
    made = observed.artifact
    if made is None or registered.opening is not None:
        return None
    asked = cast("SteeringPayload", wanted.action.payload)
    found = cast("SteeringMetrics", made.metrics)
    rule, samples, openings = asked.get("stopEarly"), asked["samplesPerPrompt"], found["n"]
    plan = registered.intention["plan"]
    if is_reached(
        plan,
        openings=openings,
        declared=found.get("n_declared", openings),
        samples=samples,
        every=None if rule is None else rule["every"],
    ):
        return None
    return {
        "digest": made.digest,
        "registration": registered.intention["digest"],
        "openings": openings,
        "samples_per_opening": samples,
        "registered_openings": plan["openings"],
        "registered_samples_per_opening": plan["samples_per_opening"],
    }
