"""Word outcomes of a text: the concept, its siblings, variety, and whether it is intact."""

from __future__ import annotations

from collections import defaultdict

from loopscope.specs.lexicon import (
    Mention,
    lexicon_pattern,
    mentions,
    promoted_beginnings,
    word_values,
)
from loopscope.specs.outcomes import DISTINCT_MIN
from loopscope.worker.stages.steering.cells import Row
from loopscope.worker.stages.steering.scored import Scored


def word_outcomes(scored: Scored) -> dict[str, dict[Row, float]]:
    """Return the outcomes of each text that its words determine.

    ``concept`` and ``sibling``: 1 if the text holds a word of that list. ``targetedness``:
    concept minus sibling, above 0 only for what is not merely of the kind. ``different_words``:
    how many different words of the lexicon. ``concept_unpromoted``: 1 if it holds one that begins
    with none of the ten tokens that its arm promotes most. ``intact``: 1 unless the text is
    degenerate.
    """
    found = _found(scored, scored.payload["lexicon"])
    promoted = promoted_tokens(scored)
    values = {row: word_values(words, promoted[row.cell]) for row, words in found.items()}
    outcomes = {
        name: {row: own[name] for row, own in values.items()}
        for name in ("concept", "different_words", "concept_unpromoted")
    }
    outcomes["intact"] = {row: float(_is_intact(scored, row)) for row in scored.rows}
    if scored.payload["siblings"]:
        siblings = _found(scored, scored.payload["siblings"])
        outcomes["sibling"] = {row: float(bool(words)) for row, words in siblings.items()}
        outcomes["targetedness"] = {
            row: outcomes["concept"][row] - outcomes["sibling"][row] for row in scored.rows
        }
    return outcomes


def _found(scored: Scored, words: list[str]) -> dict[Row, list[Mention]]:
    pattern = lexicon_pattern(words)
    openings = [opening["text"] for opening in scored.payload["openings"]]
    return {row: mentions(pattern, scored.texts[row], openings[row.opening]) for row in scored.rows}


def _is_intact(scored: Scored, row: Row) -> bool:
    """Return whether a text holds a token, holds no special one, and does not loop.

    Loops read as *more* fluent than text, so perplexity does not show them.
    """
    tokens = scored.tokens[row]
    loops = scored.outcomes["distinct_2"][row] < DISTINCT_MIN  # NaN, of one token, is not a loop
    return bool(tokens) and not loops and scored.special_tokens.isdisjoint(tokens)


def promoted_tokens(scored: Scored) -> list[tuple[str, ...]]:
    """Return for each cell the beginnings of words that its arm promotes most, folded.

    They are chosen among the likeliest tokens right after the openings, before and after.
    """
    raised: dict[tuple[str, float], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for shift in scored.shifts:
        rise = shift["probability_after"] - shift["probability_before"]
        raised[shift["arm"], shift["strength"]][shift["text"]] += rise
    return [promoted_beginnings(raised.get((c.arm, c.strength), {})) for c in scored.cells]
