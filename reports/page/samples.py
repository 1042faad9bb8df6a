"""Sampled texts, grouped by opening, with the lexicon's words and the steered tokens marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from loopscope.specs.artifacts.steering import SAMPLES, SCORES
from loopscope.specs.lexicon import lexicon_pattern, mentions
from loopscope.views.experiment import StageView
from loopscope.views.trace import Cut, OpeningToken, TextKey

SAMPLES_SHOWN_MAX = 2000
UNSTEERED = "none"


@dataclass(frozen=True)
class Sample:
    """One generated text with its marked words and its scores."""

    arm: str
    strength: float
    number: int
    text: Markup
    """With the beginning that it shares with the unsteered text of the same random numbers, and
    each steered token where the tokens are known."""
    concept: float
    perplexity: float
    kl: float


@dataclass(frozen=True)
class OpeningSamples:
    """An opening with all that was generated after it."""

    prompt_id: str
    opening: str
    samples: list[Sample]
    read: Markup
    """What the model read before them, each token that arms steer marked; empty if not known."""

    @property
    def hits(self) -> int:
        """How many of the texts score as being about the concept."""
        return sum(sample.concept > 0 for sample in self.samples)


def samples_by_opening(stage: StageView, cut: Cut) -> tuple[list[OpeningSamples], int]:
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
    unsteered = {
        (row.prompt_id, row.sample): row.text
        for row in joined[joined["arm"] == UNSTEERED].itertuples()
    }
    groups = []
    for prompt_id, rows in shown.groupby("prompt_id", sort=False):
        opening = openings.get(str(prompt_id), "")
        samples = [
            Sample(
                row.arm,
                row.strength,
                row.sample,
                marked(
                    row.text,
                    pattern,
                    opening,
                    shared=_shared(row.text, unsteered.get((row.prompt_id, row.sample)))
                    if row.arm != UNSTEERED
                    else 0,
                    steered=_steered(cut, (row.prompt_id, row.arm, row.strength, row.sample)),
                ),
                row.concept,
                row.perplexity,
                row.kl,
            )
            for row in rows.itertuples()
        ]
        read = _read(cut.openings.get(str(prompt_id), ()))
        groups.append(OpeningSamples(str(prompt_id), opening, samples, read))
    return groups, len(joined) - len(shown)


def _steered(cut: Cut, key: TextKey) -> tuple[int, ...]:
    """Return where each steered token of a text ends; nothing where its tokens are not known."""
    text = cut.texts.get(key)
    return text.ends[: text.steered] if text else ()


def _read(tokens: Sequence[OpeningToken]) -> Markup:
    return Markup("").join(
        Markup("<i>{}</i>").format(one.text) if one.steered else escape(one.text) for one in tokens
    )


def marked(
    text: str,
    pattern: re.Pattern[str],
    opening: str = "",
    shared: int = 0,
    steered: Sequence[int] = (),
) -> Markup:
    """Return the text, escaped, with each mention of the lexicon in ``<mark>``.

    Each of its first tokens, which end at ``steered``, is an ``<i>``. Its first ``shared``
    characters stand in ``<span class="same">``, a token that reaches over their end behind it.
    """
    found = [(mention.start, mention.end) for mention in mentions(pattern, text, opening)]
    ends = sorted({end for end in steered if 0 < end <= len(text)})
    if ends and shared < len(text):
        shared = max((end for end in (0, *ends) if end <= shared), default=0) or shared
    before = [end for end in ends if end <= shared]
    same = _in_tokens(text, found, before, 0, shared)
    if shared:
        same = Markup('<span class="same">{}</span>').format(same)
    return same + _in_tokens(text, found, ends[len(before) :], shared, len(text))


def _in_tokens(
    text: str, found: list[tuple[int, int]], ends: list[int], start: int, end: int
) -> Markup:
    """Return a part of a text with marks, its first tokens, up to the last of ``ends``, set off."""
    parts = [
        Markup("<i>{}</i>").format(_with_marks(text, found, first, last))
        for first, last in pairwise([start, *ends])
    ]
    rest = ends[-1] if ends else start
    return Markup("").join(parts) + _with_marks(text, found, rest, end)


def _with_marks(text: str, found: list[tuple[int, int]], start: int, end: int) -> Markup:
    """Return a part of a text, escaped, with what of the mentions lies in it marked."""
    parts, done = [], start
    inside = ((max(first, start), min(last, end)) for first, last in found)
    for first, last in inside:
        if first < last:
            parts.append(escape(text[done:first]))
            parts.append(Markup("<mark>{}</mark>").format(text[first:last]))
            done = last
    parts.append(escape(text[done:end]))
    return Markup("").join(parts)


def _shared(text: str, unsteered: str | None) -> int:
    """Return how many characters two texts begin with alike; 0 without an unsteered one."""
    pairs = enumerate(zip(text, unsteered or "", strict=False))
    differs = next((place for place, (one, other) in pairs if one != other), None)
    return differs if differs is not None else min(len(text), len(unsteered or ""))
