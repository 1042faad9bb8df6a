"""Outcomes: the ways in which texts become numbers, as a spec asks for them.

Those of ``OUTCOMES`` are measured while texts are generated (``worker/stages/steering/outcomes/``),
those of ``OF_TEXTS`` whenever somebody asks for them of texts that exist
(``worker/stages/scores/``). How each is measured stands there in ``measures.py`` under the same
names; a test compares the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict, cast

from loopscope.specs.artifact_files import Column
from loopscope.specs.outcomes_json import ScoringRulesJson
from loopscope.specs.scoring import NEGATIONS
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


@dataclass(frozen=True)
class OutcomeOfTexts:
    """An outcome that needs nothing but texts: text in, number out.

    It has the name of the field of a scoring that asks for it. ``asked`` returns what its numbers
    depend on beside the texts, all of it part of the digest; ``beside`` what its measure has to
    know and what changes no number (where a judge is reached, how fast it may be asked).
    ``columns`` are what it makes of a text; ``leads`` names the one, from 0 to 1, that a verdict
    may rest on, empty where none may. ``validated`` outcomes lead only where people's ratings of
    the same texts show that they tell them apart. ``revision`` and ``notes`` are those of an
    ``Outcome``.
    """

    asked: Callable[[ScoringRulesJson], Mapping[str, object]]
    columns: tuple[Column, ...]
    leads: str = ""
    validated: bool = False
    beside: Callable[[ScoringRulesJson], Mapping[str, object]] = lambda _: {}
    revision: int = 1
    notes: Mapping[int, str] = field(default_factory=dict)


def _words(spec: ScoringRulesJson) -> Mapping[str, object]:
    words = spec["words"]
    listed = words["negations"]["texts"] if "negations" in words else list(NEGATIONS)
    return {
        "lexicon": words["lexicon"]["texts"],
        "forms": words["forms"],
        "negations": listed,
        "negationReach": words["negationReach"],
    }


def _embedding(spec: ScoringRulesJson) -> Mapping[str, object]:
    embedding = spec["embedding"]
    return {
        "concept": embedding["concept"]["texts"],
        "siblings": embedding["siblings"]["texts"],
        "threshold": embedding["threshold"],
    }


_OF_THE_ANSWER = ("model", "question", "prompt", "maxAnswerTokens")


def _judge(spec: ScoringRulesJson) -> Mapping[str, object]:
    return {name: one for name, one in spec["judge"].items() if name in _OF_THE_ANSWER}


def _way_to_the_judge(spec: ScoringRulesJson) -> Mapping[str, object]:
    return {name: one for name, one in spec["judge"].items() if name not in _OF_THE_ANSWER}


OF_TEXTS: Mapping[str, OutcomeOfTexts] = {
    "repetition": OutcomeOfTexts(
        lambda _: {},
        (
            *(
                Column(
                    f"distinct_{n}_grams",
                    "float64",
                    f"share of distinct {n}-grams of tokens; NaN with fewer than {n} tokens",
                    "0 to 1",
                )
                for n in (1, 2, 3)
            ),
            Column(
                "compression",
                "float64",
                "bytes of the text over those of its DEFLATE stream (level 9); rises with "
                "repetition, and with length; NaN of an empty text",
            ),
        ),
    ),
    "words": OutcomeOfTexts(
        _words,
        (
            Column("words", "float64", "1 when a word is mentioned that is not negated", "0 or 1"),
            Column("negated_words", "float64", "how many mentions are negated", "mentions"),
        ),
        leads="words",
    ),
    "embedding": OutcomeOfTexts(
        _embedding,
        (
            Column(
                "embedding",
                "float64",
                "cosine to the concept minus the mean of its cosines to the siblings; NaN of an "
                "empty text",
                "−2 to 2",
            ),
            Column("embedding_hit", "float64", "1 above `threshold`, else 0", "0 or 1"),
        ),
        leads="embedding_hit",
        validated=True,
    ),
    "judge": OutcomeOfTexts(
        _judge,
        (
            Column(
                "judge",
                "float64",
                "share of *yes* over both orders of the answers; NaN where neither was readable",
                "0 to 1",
            ),
        ),
        leads="judge",
        beside=_way_to_the_judge,
    ),
    "ratings": OutcomeOfTexts(
        lambda spec: {"sets": spec["ratings"]["sets"]},
        (
            Column(
                "rating",
                "float64",
                "share of the raters who call the text about the concept; NaN where nobody rated",
                "0 to 1",
            ),
        ),
        leads="rating",
    ),
}
CONCEPT = "concept"


def leading_column(primary: str) -> str:
    """Return the column that a primary outcome's verdict rests on."""
    return CONCEPT if primary == CONCEPT else OF_TEXTS[primary].leads


def asked_of_texts(spec: ScoringRulesJson) -> list[str]:
    """Return the outcomes that a scoring asks for, in their order."""
    given: Mapping[str, object] = spec
    return [name for name in OF_TEXTS if given.get(name)]


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
