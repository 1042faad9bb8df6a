"""Sameness of texts, and the visible part of one."""

from __future__ import annotations

import unicodedata


def normalised(text: str) -> str:
    """Return the form in which two texts count as the same prompt; empty for a blank text.

    Composed and decomposed letters, spacing and case are the same, and what cannot be seen (a
    zero-width space, a byte order mark) is nothing.
    """
    if not text.isascii():
        seen = "".join(character for character in text if not _is_unseen(character))
        text = unicodedata.normalize("NFC", seen)
    return " ".join(text.split()).casefold()


_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks without a shape; other invisible characters have the category Cf."""


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) == "Cf" or character in _FILLERS
