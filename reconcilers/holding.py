"""Verdicts that are asked to hold: the same word at every value of some axes of a sweep.

Where each cell must say a word, the chance of it is at most that in one cell: an intersection-union
test (Berger 1982), which needs no correction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from loopscope.specs.sweep import Combination

NOT_TESTABLE = "NotTestable"


class Held(TypedDict):
    """Whether a verdict holds over the axes that were asked; ``holds`` is None until all is known.

    ``where`` are the values of the other axes, ``verdict`` the word that all cells say, None where
    they differ, and ``words`` the cells that say each word, by the values of the axes asked.
    """

    where: dict[str, str]
    holds: bool | None
    verdict: str | None
    words: dict[str, list[str]]


def held_over(
    axes: Sequence[str], cells: Sequence[Combination], words: Sequence[str | None]
) -> list[Held]:
    """Return one answer for each combination of the axes that are not asked about.

    ``words`` are the cells' verdicts in their order, None where there is none yet. A word that no
    cell could test holds nowhere.
    """
    groups: dict[Combination, dict[str, str | None]] = {}
    for values, word in zip(cells, words, strict=True):
        rest = tuple(one for one in values if one[0] not in axes)
        place = "-".join(value for axis, value in values if axis in axes)
        groups.setdefault(rest, {})[place] = word
    return [_held(dict(rest), found) for rest, found in groups.items()]


def _held(where: dict[str, str], found: Mapping[str, str | None]) -> Held:
    by_word: dict[str, list[str]] = {}
    for place, word in found.items():
        if word is not None:
            by_word.setdefault(word, []).append(place)
    is_known = all(word is not None for word in found.values())
    shared = next(iter(by_word)) if is_known and len(by_word) == 1 else None
    holds = None if not is_known and len(by_word) < 2 else shared not in (None, NOT_TESTABLE)
    return {"where": where, "holds": holds, "verdict": shared, "words": by_word}
