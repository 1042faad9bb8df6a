"""Outcomes: the ways in which generated texts become numbers, as a spec asks for them.

How each is measured stands in ``loopscope.worker.stages.steering.outcomes`` under the same names;
a test compares the two tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """One way in which texts become numbers.

    It has the name of the field of a steering spec that asks for it. ``asked`` returns what its
    numbers depend on, from a stored spec that has the field: what its measure finds in the payload,
    its own name first, and all of it part of the digest. ``revision`` is raised by hand when the
    same texts get other numbers.
    """

    asked: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    revision: int = 1


def _lexicon(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "lexicon": spec["lexicon"]["texts"],
        "siblings": spec.get("siblings", {}).get("texts", []),
    }


OUTCOMES: Mapping[str, Outcome] = {"lexicon": Outcome(_lexicon)}


def asked_of_outcomes(
    spec: Mapping[str, Any], outcomes: Mapping[str, Outcome] = OUTCOMES
) -> dict[str, Any]:
    """Return what all outcomes that a steering spec asks for depend on.

    Revision 1 is left out: what was made before revisions were counted stays valid.
    """
    found: dict[str, Any] = {}
    for name, outcome in outcomes.items():
        if name in spec:
            found |= outcome.asked(spec)
            if outcome.revision > 1:
                found[f"{name}Revision"] = outcome.revision
    return found
