"""The looks at a verdict as rows of text, and what they come to in a sentence or two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.views.numbers import MINUS, MISSING, count, signed, signed_interval
from loopscope.views.sensitivity.look import Look
from loopscope.views.sensitivity.looks import Looks

HEAD = ("what", "choice", "from", "verdict", "contrast", "difference", "95 % interval", "n", "note")
NAMED_MAX = 4
WORDS_SHOWN_MAX = 15
"""Words of the lexicon that are shown one by one, beside those without which the word is another;
the bundle's table has all."""
NOT_TESTS = (
    "These are looks, not tests: none of them was declared, their p are not corrected for one "
    "another, and the declared verdict stands."
)


def look_rows(rows: Sequence[Look]) -> list[tuple[str, ...]]:
    """Return the cells of each look; another word than the declared one is marked."""
    return [
        (
            "" if one.axis == "declared" else one.axis,
            one.setting,
            one.source,
            f"{one.verdict} (changed)" if one.changed else one.verdict or MISSING,
            one.contrast.replace("-", f" {MINUS} ", 1) or MISSING,
            signed(one.estimate) if one.estimate is not None else MISSING,
            signed_interval(one.low, one.high) if one.low is not None else MISSING,
            count(one.n) if one.n is not None else MISSING,
            one.note,
        )
        for one in rows
    ]


def looks_sentences(looks: Looks) -> list[str]:
    """Return how many looks change the word, which, what nobody ran, and what looks are."""
    if not looks.rows:
        return []
    declared, found, other = looks.rows[0].verdict, looks.judged, looks.changing
    sentences = []
    if found:
        named = [f"{one.axis} {one.setting} ({one.verdict})" for one in other[:NAMED_MAX]]
        more = f" and {count(len(other) - NAMED_MAX)} more" if len(other) > NAMED_MAX else ""
        which = f": {'; '.join(named)}{more}" if named else ""
        sentences.append(
            f"{count(len(other))} of {count(len(found))} other choices give another word than "
            f"{declared}{which}."
        )
    else:
        sentences.append(
            "The stored scores do not give this verdict again by the rules of now, so no other "
            "choice can be computed from them."
        )
    if looks.not_run:
        sentences.append(f"{count(len(looks.not_run))} more need another run, which nobody made.")
    return [*sentences, NOT_TESTS]


@dataclass(frozen=True)
class ShownLooks:
    """Looks as a page or a terminal shows them: cells below ``HEAD``, and sentences about all.

    ``hidden`` words of the lexicon have no row: taken out alone they leave the word as it is.
    """

    rows: list[tuple[str, ...]]
    hidden: int
    sentences: list[str]


def told_looks(looks: Looks) -> ShownLooks:
    """Return what is shown of looks."""
    shown, hidden = shown_looks(looks)
    return ShownLooks(look_rows(shown), hidden, looks_sentences(looks))


def shown_looks(looks: Looks) -> tuple[list[Look], int]:
    """Return the looks that are shown one by one, and how many words of the lexicon are not.

    Those leave the word as it is.
    """
    words, shown = 0, []
    for one in looks.rows:
        is_word = one.axis == "lexicon" and one.setting.startswith("without '")
        words += is_word
        if not is_word or words <= WORDS_SHOWN_MAX or one.changed:
            shown.append(one)
    return shown, len(looks.rows) - len(shown)
