"""Contents of a registration: digests of the stages of a spec, and how much it asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from loopscope.numerics.verdict.sequential import NEEDED
from loopscope.reconcilers.registry import OWNED_BY_KIND
from loopscope.reconcilers.steering import scored_openings
from loopscope.specs.blinding import arms_by_letter
from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.specs.payloads.steering import SteeringPayload
from loopscope.specs.pipeline import nodes_of
from loopscope.specs.registration import (
    EARLY,
    FIXED,
    OtherSteering,
    RegisteredPlan,
    Registration,
    in_force,
)
from loopscope.specs.spec_json import ExperimentJson, SteeringJson
from loopscope.state.db import job_reading
from loopscope.state.db.connection import Connection
from loopscope.views.documents.objects import texts_in_place
from loopscope.views.numbers import iso


def spec_digests(spec: ExperimentJson) -> dict[str, str]:
    """Return a digest of the spec of each stage: of the texts, not of where they were read."""
    given: Any = texts_in_place(spec)
    return {
        node.name: digest(OWNED_BY_KIND[node.kind](given, node.name)) for node in nodes_of(given)
    }


def plan_of(steering: SteeringJson) -> RegisteredPlan:
    """Return how much a steering's spec asks for."""
    return {
        "openings": len(scored_openings(steering)),
        "samples_per_opening": steering["samplesPerPrompt"],
        "arms": list(steering["arms"]),
        "strengths": list(steering["strengths"]),
        "strength_unit": steering["strengthUnit"],
        "min_difference": steering["minDifference"],
        "stopping": _stopping(steering),
    }


def _stopping(steering: SteeringJson) -> str:
    """Return when the registered number of openings is enough, in words that are compared."""
    if (rule := steering.get("stopEarly")) is None:
        return FIXED
    return EARLY.format(
        every=rule["every"],
        supported=NEEDED["Supported"],
        refuted=NEEDED["Refuted"],
        no_difference=NEEDED["NoPracticalDifference"],
    )


def letters_told(records: Sequence[Registration], arms: Iterable[str]) -> dict[str, str]:
    """Return the arm of each letter, as the last intention of an experiment drew them."""
    found = in_force(records)
    return {} if found is None else arms_by_letter(found.intention["digest"], arms)


def other_steerings(
    connection: Connection, experiment: Key, own: str | None
) -> list[OtherSteering]:
    """Return the steerings of an experiment that ended, but for the one of digest ``own``."""
    key = Key("Steering", experiment.namespace, f"{experiment.name}-steering")
    found: list[OtherSteering] = []
    for job in job_reading.succeeded(connection, key):
        if job.digest == own:
            continue
        asked = cast(SteeringPayload, job.payload)
        found.append(
            {
                "digest": job.digest,
                "openings": len(asked["openings"]),
                "samples_per_opening": asked["samplesPerPrompt"],
                "ended_at": str(iso(job.finished_at, "milliseconds")),
            }
        )
    return found
