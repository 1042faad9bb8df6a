"""Nearness of a text to a concept among its siblings, by sentence embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np

from loopscope.numerics.steering.outcomes import sibling_margin
from loopscope.specs.json_values import JsonObject
from loopscope.worker.context import StageContext
from loopscope.worker.sentence_encoder import NAME, SentenceEncoder
from loopscope.worker.stages.scores.scored_texts import Measured, ScoredText


def embedding(texts: Sequence[ScoredText], asked: JsonObject, context: StageContext) -> Measured:
    """Return each text's cosine to the concept minus the mean of those to its siblings.

    Equal texts are read once. NaN of a text without a visible letter.
    """
    encoder = SentenceEncoder.load()
    different = list(dict.fromkeys(text.text for text in texts if text.text.strip()))

    def report(done: int) -> None:
        context.progress("ReadingTexts", done, len(different), "texts")

    margins = sibling_margin(
        encoder.encode(different, report),
        encoder.encode(cast(list[str], asked["concept"])),
        encoder.encode(cast(list[str], asked["siblings"])),
    )
    of_text = dict(zip(different, margins.tolist(), strict=True))
    found = [of_text.get(text.text, float("nan")) for text in texts]
    hit = partial(_hit, threshold=cast(float, asked["threshold"]))
    return Measured({"embedding": found, "embedding_hit": list(map(hit, found))}, model=NAME)


def _hit(margin: float, threshold: float) -> float:
    return margin if np.isnan(margin) else float(margin > threshold)
