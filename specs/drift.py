"""Drift: what its fillers are made of, and when there is nothing that could drift."""

from __future__ import annotations

from collections.abc import Sequence

from loopscope.specs.lexicon import folded, lexicon_pattern
from loopscope.specs.neutral import PACKAGED, PLACEBO
from loopscope.specs.packaged import packaged_texts

SENTENCES = packaged_texts("calibration")
"""Read once, with the code, as the neutral texts are."""
STAND_IN = "This is a text like many others."
"""Tells how many words stand in front where there is no system prompt; it is read by no model."""
FILLER_TEXTS_MIN = 8
"""Texts without a word of the lexicon that must be there."""


def filler_texts(lexicon: Sequence[str], own: Sequence[str] | None) -> tuple[str, ...]:
    """Return the texts that fillers are made of, none with a word of the lexicon.

    Raises ValueError where too few are left.
    """
    pattern = lexicon_pattern(lexicon)
    texts = (*PACKAGED, *SENTENCES) if own is None else own
    free = tuple(text for text in texts if not pattern.search(folded(text)))
    if len(free) < FILLER_TEXTS_MIN:
        raise ValueError(
            f"only {len(free)} of {len(texts)} filler texts hold no word of the lexicon, and "
            f"{FILLER_TEXTS_MIN} are needed; give drift.fillerText, one neutral text a line"
        )
    return free


def other_words(lexicon: Sequence[str]) -> str:
    """Return packaged words about nothing in particular, other than those of the usual placebo."""
    pattern = lexicon_pattern(lexicon)
    texts = (*reversed(PLACEBO), *PACKAGED)
    return next((text for text in texts if not pattern.search(folded(text))), PLACEBO[-1])


def why_no_drift(
    *,
    chat: bool,
    lexicon: Sequence[str],
    filler_text: Sequence[str] | None,
) -> str | None:
    """Return why the drift of a steering cannot be measured; None where it can."""
    if chat:
        return "drift is measured on plain texts, and prompts.chat puts them into a template"
    try:
        filler_texts(lexicon, filler_text)
    except ValueError as error:
        return str(error)
    return None
