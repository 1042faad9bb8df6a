"""A lexicon with word forms and negation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

from loopscope.specs.json_values import JsonObject
from loopscope.specs.lexicon import folded, inflected, lexicon_pattern, mentions
from loopscope.worker.stages.scores.scored_texts import Measured, ScoredText

SENTENCE_END = re.compile(r"[.!?;:\n]")
WORD = re.compile(r"[^\W_]+(?:['\u2018\u2019\u02bc][^\W_]+)*")


def words(texts: Sequence[ScoredText], asked: JsonObject) -> Measured:
    """Return whether a text mentions the concept without negating it, and what it negates."""
    listed = cast(list[str], asked["lexicon"])
    pattern = lexicon_pattern(inflected(listed) if asked["forms"] == "inflected" else listed)
    negating = {folded(word).casefold() for word in cast(list[str], asked["negations"])}
    reach = cast(int, asked["negationReach"])
    hits: list[float] = []
    negated: list[float] = []
    for text in texts:
        found = mentions(pattern, text.text, text.opening)
        before = (f"{text.opening}{text.text[: one.start]}" for one in found)
        denied = sum(is_negated(words_before, negating, reach) for words_before in before)
        hits.append(float(len(found) > denied))
        negated.append(float(denied))
    return Measured({"words": hits, "negated_words": negated})


def is_negated(before: str, negating: set[str], reach: int) -> bool:
    """Return whether a negation is among the last ``reach`` words of an unfinished sentence."""
    near = WORD.findall(SENTENCE_END.split(before)[-1])[-reach:] if reach else []
    return any(folded(word).casefold() in negating for word in near)
