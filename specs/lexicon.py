"""Word lists: how their words are found in a text, and what makes a list worthless."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence


def lexicon_pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Return what finds any of the words as a whole word or phrase, in any case.

    The same definition as the concept score's: NFC, any white space between a phrase's words.
    """
    phrases = sorted({nfc(word).strip() for word in words} - {""})
    parts = [r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases]
    return re.compile(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)", re.IGNORECASE)


def nfc(text: str) -> str:
    """Return the text with each letter and its accents as one character where there is one."""
    return unicodedata.normalize("NFC", text)


def check_free_of_words(
    words: Sequence[str], texts: Sequence[str], kind: str, share_max: float = 0.0
) -> None:
    """Raise ValueError where more than ``share_max`` of the texts hold one of the words."""
    pattern = lexicon_pattern(words)
    found = [(match.group(), text) for text in texts if (match := pattern.search(nfc(text)))]
    if len(found) > share_max * len(texts):
        word, text = found[0]
        raise ValueError(
            f"{len(found)} of {len(texts)} {kind} hold a word of the lexicon, for example "
            f"{word!r} in {text[:60]!r}; take out the text or the word"
        )


def check_apart(lexicon: Sequence[str], siblings: Sequence[str]) -> None:
    """Raise ValueError where one mention would count for the concept and for its siblings."""
    for words, others in ((lexicon, siblings), (siblings, lexicon)):
        pattern = lexicon_pattern(words)
        both = [other for other in others if pattern.search(nfc(other))]
        if both:
            raise ValueError(
                f"{len(both)} words count as lexicon and as siblings, for example {both[0]!r}; "
                "keep each in one list"
            )
