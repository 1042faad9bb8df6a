"""Outcomes: the ways in which generated texts become numbers, as a spec asks for them.

How each is measured stands in ``worker/stages/steering/outcomes/measures.py`` under the same names;
a test compares the two tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict, cast

from loopscope.specs.artifact_files import Column
from loopscope.specs.spec_json import SteeringJson

DISTINCT_MIN = 0.7
"""A text with a smaller share of distinct pairs of tokens goes round in a loop."""


class OutcomeFields(TypedDict):
    """What all outcomes depend on, as fields of the payload; ``NotRequired`` where few ask."""

    lexicon: list[str]
    siblings: list[str]


@dataclass(frozen=True)
class Outcome:
    """One way in which texts become numbers.

    It has the name of the field of a steering spec that asks for it. ``asked`` returns what its
    numbers depend on, from a stored spec that has the field: what its measure finds in the payload,
    its own name first, and all of it part of the digest. ``columns`` are what it adds to the scores
    of texts; ``where``: the condition under which one is there. ``revision`` is raised by hand when
    the same texts get other numbers, and ``notes`` say in one phrase what each revision changed.
    """

    asked: Callable[[SteeringJson], Mapping[str, object]]
    columns: tuple[Column, ...]
    revision: int = 1
    notes: Mapping[int, str] = field(default_factory=dict)


def _lexicon(spec: SteeringJson) -> Mapping[str, object]:
    return {
        "lexicon": spec["lexicon"]["texts"],
        "siblings": spec["siblings"]["texts"] if "siblings" in spec else [],
    }


_SIBLINGS = "with `siblings`"
_WORDS = (
    Column("different_words", "float64", "number of different lexicon words in the text", "words"),
    Column(
        "concept_unpromoted",
        "float64",
        "1 when the text holds a lexicon word that begins with none of the ten tokens that its arm "
        "and strength promote most, else 0",
        "0 or 1",
    ),
    Column(
        "intact",
        "float64",
        "0 for a degenerate text: no token, a special token, or `distinct_2` below 0.7; else 1",
        "0 or 1",
    ),
    Column("sibling", "float64", "1 or 0 by the words of `siblings`", "0 or 1", where=_SIBLINGS),
    Column("targetedness", "float64", "concept minus sibling", "−1 to 1", where=_SIBLINGS),
)
LEXICON = Outcome(_lexicon, _WORDS)
"""Words of the concept and of its siblings. Its ``concept``, which the verdict rests on, stands
first in the table."""
OUTCOMES: Mapping[str, Outcome] = {"lexicon": LEXICON}


def revision_field(name: str) -> str:
    """Return the field of a payload that says by which revision an outcome is measured."""
    return f"{name}Revision"


def asked_of_outcomes(
    spec: SteeringJson, outcomes: Mapping[str, Outcome] = OUTCOMES
) -> OutcomeFields:
    """Return what all outcomes that a steering spec asks for depend on.

    Revision 1 is left out: what was made before revisions were counted stays valid.
    """
    found: dict[str, object] = {}
    for name, outcome in outcomes.items():
        if name in spec:
            found |= outcome.asked(spec)
            if outcome.revision > 1:
                found[revision_field(name)] = outcome.revision
    return cast(OutcomeFields, found)
