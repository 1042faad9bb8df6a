"""Ratings of texts by people, as the mean over raters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from loopscope.specs.json_values import JsonObject
from loopscope.specs.ratings import Rated, read_ratings
from loopscope.worker.stages.scores.scored_texts import Measured, ScoredText


def ratings(texts: Sequence[ScoredText], asked: JsonObject) -> Measured:
    """Return the share of raters who call each text about the concept; NaN where nobody rated.

    Of a text that somebody rated twice the later rating counts.
    """
    sets = [read_ratings(text) for text in cast(list[str], asked["sets"])]
    said: dict[Rated, dict[str, int]] = {}
    for one in sorted(sets, key=lambda one: one.date):
        for place, rating in one.ratings.items():
            said.setdefault(place, {})[one.rater] = rating
    return Measured({"rating": [_mean(said.get(text.place, {})) for text in texts]})


def _mean(by_rater: dict[str, int]) -> float:
    return sum(by_rater.values()) / len(by_rater) if by_rater else float("nan")
