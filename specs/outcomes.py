"""Outcomes: the ways in which generated texts become numbers, as a spec asks for them.

How each is measured stands in ``loopscope.worker.stages.steering.outcomes`` under the same names;
a test compares the two tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loopscope.specs.json_values import JsonObject
from loopscope.specs.spec_json import SteeringJson


@dataclass(frozen=True)
class Outcome:
    """One way in which texts become numbers.

    It has the name of the field of a steering spec that asks for it. ``asked`` returns what its
    numbers depend on, from a stored spec that has the field: what its measure finds in the payload,
    its own name first, and all of it part of the digest. ``revision`` is raised by hand when the
    same texts get other numbers.
    """

    asked: Callable[[SteeringJson], JsonObject]
    revision: int = 1


def _lexicon(spec: SteeringJson) -> JsonObject:
    return {
        "lexicon": [*spec["lexicon"]["texts"]],
        "siblings": [*spec["siblings"]["texts"]] if "siblings" in spec else [],
    }


OUTCOMES: Mapping[str, Outcome] = {"lexicon": Outcome(_lexicon)}


def asked_of_outcomes(spec: SteeringJson, outcomes: Mapping[str, Outcome] = OUTCOMES) -> JsonObject:
    """Return what all outcomes that a steering spec asks for depend on.

    Revision 1 is left out: what was made before revisions were counted stays valid.
    """
    found: JsonObject = {}
    for name, outcome in outcomes.items():
        if name in spec:
            found |= outcome.asked(spec)
            if outcome.revision > 1:
                found[f"{name}Revision"] = outcome.revision
    return found
