"""The words of a verdict, each with its p: which one applies, also after a correction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loopscope.numerics.statistics.paired import Contrast

LEVEL_ONE_SIDED = 0.025
LEVEL_EQUIVALENCE = 0.05
SINGLES = 2
"""How many single resolutions multi is compared with."""


@dataclass(frozen=True)
class WordP:
    """The p of each word. The verdict is the first word whose p is at most its level.

    ``supported`` and ``refuted`` have the level 0.025, ``no_difference`` 0.05.
    """

    supported: float
    refuted: float
    no_difference: float


def word_p(primary: Sequence[Contrast], intact: Sequence[Contrast] | None = None) -> WordP:
    """Return the p of each word; ``intact`` are the contrasts that a gain needs as well.

    Multi beats both where *every* contrast is above 0 (intersection-union, no correction), also
    among intact texts. Worse than *either* resolution is enough for Refuted, so its p is doubled
    (Bonferroni). Multi minus the better single resolution is the smallest contrast: it is above −δ
    where *every* contrast is, and below δ where *some* contrast is, which again is doubled. A large
    gain over the worse resolution is therefore no hindrance.
    """
    gain = [contrast.p_gain for contrast in (*primary, *(intact or ()))]
    if intact is not None and len(intact) < SINGLES:
        gain.append(1.0)
    return WordP(
        supported=max(gain),
        refuted=either(contrast.p_loss for contrast in primary),
        no_difference=max(
            *(contrast.p_above_margin for contrast in primary),
            either(contrast.p_below_margin for contrast in primary),
        ),
    )


def either(p: Iterable[float]) -> float:
    """Return the p of either of the two contrasts (Bonferroni)."""
    return min(1.0, SINGLES * min(p))


def word_of(p: WordP) -> str:
    """Return the word that these p allow."""
    if p.supported <= LEVEL_ONE_SIDED:
        return "Supported"
    if p.refuted <= LEVEL_ONE_SIDED:
        return "Refuted"
    return "NoPracticalDifference" if p.no_difference <= LEVEL_EQUIVALENCE else "Inconclusive"
