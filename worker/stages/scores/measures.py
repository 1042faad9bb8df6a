"""The measures of outcomes of texts, under the names that they have in ``OF_TEXTS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from loopscope.specs.payloads.scores import ScoresPayload
from loopscope.worker.context import StageContext
from loopscope.worker.stages.scores.embedding import embedding
from loopscope.worker.stages.scores.judge.asking import judge
from loopscope.worker.stages.scores.ratings import ratings
from loopscope.worker.stages.scores.repetition import repetition
from loopscope.worker.stages.scores.scored_texts import Measured, ScoredText
from loopscope.worker.stages.scores.words import words

Measure = Callable[[Sequence[ScoredText], ScoresPayload, StageContext], Measured]
"""Texts in, numbers out. What would come out otherwise the next time is sealed as a shard."""

MEASURES: Mapping[str, Measure] = {
    "repetition": lambda texts, _, __: repetition(texts),
    "words": lambda texts, payload, _: words(texts, payload["asked"]),
    "embedding": lambda texts, payload, context: embedding(texts, payload["asked"], context),
    "judge": judge,
    "ratings": lambda texts, payload, _: ratings(texts, payload["asked"]),
}
