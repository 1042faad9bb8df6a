"""Neutral texts, and the placebo of a system prompt, where a spec names none."""

from __future__ import annotations

from collections.abc import Sequence

from loopscope.specs.lexicon import folded, lexicon_pattern
from loopscope.specs.packaged import packaged_texts

PACKAGED = packaged_texts("neutral")
"""Read once, with the code: what a controller decides does not change while it runs."""
PLACEBO = packaged_texts("placebo")
NEUTRAL_TEXTS_ADVISED = 32
NEUTRAL_TEXTS_MIN = 8
"""Packaged texts that must be left after those with a word of the lexicon are out."""
CHARACTERS_PER_BYTE = 8
"""A token of a system prompt has at least a byte, one of plain English rarely more characters."""


def packaged_neutral_texts(lexicon: Sequence[str]) -> tuple[str, ...]:
    """Return the packaged texts that hold no word of the lexicon.

    Raises ValueError where too few are left.
    """
    free = _without_words(PACKAGED, lexicon)
    if len(free) < NEUTRAL_TEXTS_MIN:
        raise ValueError(
            f"only {len(free)} of {len(PACKAGED)} packaged neutral texts hold no word of the "
            f"lexicon, and {NEUTRAL_TEXTS_MIN} are needed; give neutralText, or take common words "
            "out of the lexicon"
        )
    return free


def packaged_placebo(system_prompt: str, lexicon: Sequence[str]) -> str:
    """Return plain text of at least as many tokens as the system prompt, as far as there is some.

    Without a word of the lexicon. A worker cuts it to the number of tokens, or begins it again.
    """
    characters = CHARACTERS_PER_BYTE * len(system_prompt.encode())
    parts: list[str] = []
    for text in _without_words((*PLACEBO, *PACKAGED), lexicon):
        if sum(map(len, parts)) >= characters:
            break
        parts.append(text)
    return " ".join(parts)


def _without_words(texts: Sequence[str], lexicon: Sequence[str]) -> tuple[str, ...]:
    pattern = lexicon_pattern(lexicon)
    return tuple(text for text in texts if not pattern.search(folded(text)))
