"""A verdict that may be asked for after every opening: e-values by betting.

An e-process is the capital of one who bets against a null, with stakes fixed before each outcome:
under the null it is expected not to grow, so the chance that it *ever* reaches 1/alpha is at most
alpha (Ville 1939), however often one looks and for whatever reason one stops. The bets are those of
Waudby-Smith and Ramdas 2024 (section 4): the stake is what a plug-in of Kelly's rule says, from
earlier differences alone.

The unit is the opening; a group of openings that belong together is one unit, its mean difference.
They must come in an order that was fixed before their scores were known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.verdict.words import LEVEL_EQUIVALENCE, LEVEL_ONE_SIDED, WordP, word_of

if TYPE_CHECKING:
    from loopscope.numerics.statistics.paired import Contrast

Floats = NDArray[np.float64]

STAKE_MAX = 0.5
"""Largest share of the capital that one outcome can take."""
PRIOR_VARIANCE = 0.25
"""Variance of a difference before any is known, worth one opening."""


@dataclass(frozen=True)
class WordE:
    """The e-value of each word so far; a word is said where it reaches 1 over the word's level."""

    supported: float
    refuted: float
    no_difference: float

    @property
    def word(self) -> str:
        """The word that may be said now, ``Inconclusive`` while there is none."""
        return word_of(self.p)

    @property
    def p(self) -> WordP:
        """The p of each word, 1/e: it holds at any time."""
        return WordP(*(min(1.0, 1.0 / max(e, 1e-300)) for e in self._values))

    def held_against(self, p: WordP) -> WordP:
        """Return the larger p of each word: what a look says must hold for a fixed number, too.

        That adds what no bet knows (degenerate texts, budgets that are not quite equal), and a word
        is not said more often than by the bets alone.
        """
        own = self.p
        return WordP(
            max(p.supported, own.supported),
            max(p.refuted, own.refuted),
            max(p.no_difference, own.no_difference),
        )

    @property
    def in_words(self) -> str:
        """Each e-value beside the one that its word needs."""
        named = zip(NEEDED.items(), self._values, strict=True)
        return "e-values: " + ", ".join(
            f"{word} {e:.3g} of {needed:g}" for (word, needed), e in named
        )

    @property
    def _values(self) -> tuple[float, float, float]:
        return self.supported, self.refuted, self.no_difference


NEEDED = {
    "Supported": 1 / LEVEL_ONE_SIDED,
    "Refuted": 1 / LEVEL_ONE_SIDED,
    "NoPracticalDifference": 1 / LEVEL_EQUIVALENCE,
}
"""The e-value at which a word is said."""


def capital(differences: Floats, null: float | Floats = 0.0) -> Floats:
    """Return the capital after each difference [..., openings] of one who bets on a mean above it.

    Differences lie in [-1, 1]; several nulls have the shape [..., 1]. Under a mean of at most
    ``null``, given all that came before, the expected growth is at most 1. The stake of opening t
    is (m - null) / (v + (m - null)^2) with the mean m and the variance v of the openings before t,
    within [0, 1/2] of what cannot be lost.
    """
    count = np.arange(1, differences.shape[-1] + 1, dtype=np.float64)
    sums = np.cumsum(differences, axis=-1)
    mean = sums / (count + 1)  # one opening of difference 0 stands before all
    squares = np.cumsum((differences - mean) ** 2, axis=-1)
    variance = (PRIOR_VARIANCE + squares) / (count + 1)
    excess = mean - null
    wanted = excess / (variance + excess**2)
    stake = np.clip(wanted, 0.0, STAKE_MAX / (1.0 + null))
    before = np.concatenate([np.zeros_like(stake[..., :1]), stake[..., :-1]], axis=-1)
    return np.asarray(np.exp(np.cumsum(np.log1p(before * (differences - null)), axis=-1)))


def word_e(coarse: Floats, fine: Floats, min_difference: float) -> tuple[Floats, Floats, Floats]:
    """Return the e-processes of the three words, from the differences to both single arms.

    ``coarse`` and ``fine`` [..., openings] are multi minus that arm. Supported and "above -delta"
    need *both* (the smaller capital: each of them must be won), Refuted and "below delta" *one* of
    them (the mean of the two capitals, which is an e-process where both nulls hold).
    """
    supported = np.minimum(capital(coarse), capital(fine))
    refuted = (capital(-coarse) + capital(-fine)) / 2
    above = np.minimum(capital(coarse, -min_difference), capital(fine, -min_difference))
    below = (capital(-coarse, -min_difference) + capital(-fine, -min_difference)) / 2
    return supported, refuted, np.minimum(above, below)


def word_so_far(coarse: Floats, fine: Floats, min_difference: float) -> WordE:
    """Return the largest e-values that were reached by now: what was said once stays said."""
    found = word_e(coarse, fine, min_difference)
    return WordE(*(float(path.max(initial=1.0)) for path in found))


def interval_at_any_time(differences: Floats, word: str = "Supported") -> tuple[float, float]:
    """Return an interval of the mean that holds at every look at once.

    It leaves out the means that a bet on more, or one on less, ever denies with the e-value that
    ``word`` needs (a confidence sequence, Waudby-Smith and Ramdas 2024): 95 % for Supported, 90 %
    for NoPracticalDifference. Ends are looked for in steps of 0.002, and lie on what is denied.
    """
    return _denied_up_to(differences, NEEDED[word]), -_denied_up_to(-differences, NEEDED[word])


def _denied_up_to(differences: Floats, needed: float) -> float:
    """Return the last mean, from -1 on, up to which bets on more deny every one that is tried."""
    last = -1.0
    for means in (np.arange(-0.95, 1.0, 0.05), 0.002 * np.arange(1, 25)):
        tried = np.asarray(means if last == -1.0 else last + means, dtype=np.float64)
        reached = capital(differences, tried[:, None]).max(axis=-1, initial=1.0) >= needed
        denied = int(np.append(reached, False).argmin())
        if denied:
            last = float(tried[denied - 1])
    return last


def at_any_time(contrast: Contrast, differences: Floats) -> Contrast:
    """Return a contrast with the intervals of who looks whenever it suits, in place of its own.

    ``differences`` [units] are in the order of the looks. What the error of the budgets adds does
    not become smaller with looking: it widens both intervals by its normal quantile.
    """
    low, high = _widened(differences, "Supported", 1.96 * contrast.shared_sd)
    low_90, high_90 = _widened(differences, "NoPracticalDifference", 1.645 * contrast.shared_sd)
    return replace(contrast, low=low, high=high, low_90=low_90, high_90=high_90)


def _widened(differences: Floats, word: str, error: float) -> tuple[float, float]:
    low, high = interval_at_any_time(differences, word)
    return max(-1.0, low - error), min(1.0, high + error)


def group_differences(differences: Floats, group: NDArray[np.int64] | None) -> Floats:
    """Return the mean difference of each group, in the order in which groups begin."""
    if group is None:
        return differences
    order = list(dict.fromkeys(group.tolist()))
    return np.array([differences[group == one].mean() for one in order])
