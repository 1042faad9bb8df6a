"""Sampled texts, grouped by opening, with the lexicon's words and the steered tokens marked."""

from __future__ import annotations

import re
from collections import defaultdict
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
    by_opening = defaultdict(list)
    for row in shown.itertuples():
        by_opening[str(row.prompt_id)].append(row)
    groups = []
    for prompt_id, rows in by_opening.items():
        opening = openings.get(prompt_id, "")
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
            for row in rows
        ]
        read = _read(cut.openings.get(prompt_id, ()))
        groups.append(OpeningSamples(prompt_id, opening, samples, read))
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
        same = f'<span class="same">{same}</span>'
    rest = _in_tokens(text, found, ends[len(before) :], shared, len(text))
    return Markup(same + rest)


def _in_tokens(
    text: str, found: list[tuple[int, int]], ends: list[int], start: int, end: int
) -> str:
    """Return the markup of a part of a text, its first tokens, up to the last end, set off."""
    tokens = "".join(
        f"<i>{_with_marks(text, found, first, last)}</i>"
        for first, last in pairwise([start, *ends])
    )
    return tokens + _with_marks(text, found, ends[-1] if ends else start, end)


def _with_marks(text: str, found: list[tuple[int, int]], start: int, end: int) -> str:
    """Return the markup of a part of a text, with what of the mentions lies in it marked."""
    parts: list[str] = []
    done = start
    inside = ((max(first, start), min(last, end)) for first, last in found)
    for first, last in inside:
        if first < last:
            parts.append(f"{escape(text[done:first])}<mark>{escape(text[first:last])}</mark>")
            done = last
    parts.append(escape(text[done:end]))
    return "".join(parts)


def _shared(text: str, unsteered: str | None) -> int:
    """Return how many characters two texts begin with alike; 0 without an unsteered one."""
    pairs = enumerate(zip(text, unsteered or "", strict=False))
    differs = next((place for place, (one, other) in pairs if one != other), None)
    return differs if differs is not None else min(len(text), len(unsteered or ""))
