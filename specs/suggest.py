"""Suggestions ("did you mean …?"): close names among those that are known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NAME_CHARACTERS_MAX = 100
"""So much of a name is compared; that takes time for each name that is known."""
NAMES_SHOWN = 50


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that ``name`` was probably meant to be; case does not matter."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    wanted = name[:NAME_CHARACTERS_MAX].lower()
    found = difflib.get_close_matches(wanted, list(by_lower), n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: a suggestion, or what is known."""
    names = list(known)
    close = closest(name, names)
    if close:
        return f"; did you mean {close!r}?"
    more = len(names) - NAMES_SHOWN
    known_names = ", ".join(one[:NAME_CHARACTERS_MAX] for one in names[:NAMES_SHOWN])
    return f"; known: {known_names}{f' and {more:,} others' if more > 0 else ''}"
