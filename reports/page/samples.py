"""Sampled texts, grouped by opening, with the lexicon's words marked."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup, escape

from loopscope.specs.artifacts.steering import SAMPLES, SCORES
from loopscope.specs.lexicon import lexicon_pattern, mentions
from loopscope.views.experiment import StageView

SAMPLES_SHOWN_MAX = 2000


@dataclass(frozen=True)
class Sample:
    """One generated text with its marked words and its scores."""

    arm: str
    strength: float
    number: int
    text: Markup
    concept: float
    perplexity: float
    kl: float


@dataclass(frozen=True)
class OpeningSamples:
    """An opening with all that was generated after it."""

    prompt_id: str
    opening: str
    samples: list[Sample]

    @property
    def hits(self) -> int:
        """How many of the texts score as being about the concept."""
        return sum(sample.concept > 0 for sample in self.samples)


def samples_by_opening(stage: StageView) -> tuple[list[OpeningSamples], int]:
    """Return the openings with their samples, and how many samples are left out for length."""
    texts = stage.table(SAMPLES)
    scores = stage.table(SCORES)
    key = SAMPLES.named("prompt_id", "arm", "strength", "sample")
    joined = texts.merge(scores, on=key, how="left", sort=False)
    shown = joined.head(SAMPLES_SHOWN_MAX)
    openings = {
        f"opening-{number:04d}": text for number, text in enumerate(stage.spec["prompts"]["texts"])
    }
    pattern = lexicon_pattern(stage.spec["lexicon"]["texts"])
    groups = []
    for prompt_id, rows in shown.groupby("prompt_id", sort=False):
        opening = openings.get(str(prompt_id), "")
        samples = [
            Sample(
                row.arm,
                row.strength,
                row.sample,
                marked(row.text, pattern, opening),
                row.concept,
                row.perplexity,
                row.kl,
            )
            for row in rows.itertuples()
        ]
        groups.append(OpeningSamples(str(prompt_id), opening, samples))
    return groups, len(joined) - len(shown)


def marked(text: str, pattern: re.Pattern[str], opening: str = "") -> Markup:
    """Return the text, escaped, with each mention of the lexicon in ``<mark>``."""
    parts, end = [], 0
    for mention in mentions(pattern, text, opening):
        parts.append(escape(text[end : mention.start]))
        parts.append(Markup("<mark>{}</mark>").format(text[mention.start : mention.end]))
        end = mention.end
    parts.append(escape(text[end:]))
    return Markup("").join(parts)
