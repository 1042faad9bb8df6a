"""Permutation tests of whether two latents go together beyond what their condition explains.

Prompts are permuted within their condition, and within the class of their last token where that
is known, so the means of these strata stay as they are. The marginal correlation is then a rising
function of the one within strata: one p serves both. A small p means *not independent*; it does
not mean parent and child.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.special
from numpy.typing import NDArray

from loopscope.numerics.latents.mapping import COLUMN_BYTES_MAX, ActivationColumns, Indices
from loopscope.numerics.latents.splits import exchangeable
from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.statistics.multiple_tests import Floats
from loopscope.numerics.statistics.perfect import FIRING_PROMPTS_MIN

TOLERANCE = 1e-12
"""Permutations that only exchange equal activations give the observed value but for rounding."""


@dataclass(frozen=True)
class EdgeTest:
    """One-sided p of one coarse latent with each fine latent, NaN where not tested.

    ``alone`` compares a pair with its own permutations; ``searched`` with the largest correlation
    of each permutation over all tested fine latents (Westfall and Young 1993, single step), and
    is the one to use for a pair that was found by looking for a high correlation.
    """

    alone: Floats
    searched: Floats


def edge_test(
    coarse: ActivationColumns,
    fine: ActivationColumns,
    latent: int,
    permutations: int,
    seed: int,
    strata: Indices | None = None,
    bytes_max: int = COLUMN_BYTES_MAX,
) -> EdgeTest:
    """Permute the prompts of ``latent`` within their strata: p = (1 + k) / (1 + permutations).

    ``strata`` [prompts] are by default the groups that the columns are centred in, and must not
    reach across these; prompts that belong together change places as a whole. k counts permutations
    with a correlation as large as the observed one (Phipson and Smyth 2010: never 0). Not tested
    are latents that are constant within conditions or fire on fewer than five prompts; without
    permutations nothing is tested.
    """
    untested = np.full(fine.latents, np.nan)
    tested = np.flatnonzero((fine.spread > 0) & (fine.firing >= FIRING_PROMPTS_MIN))
    known = coarse.spread[latent] > 0 and coarse.firing[latent] >= FIRING_PROMPTS_MIN
    if not (permutations and known and tested.size):
        return EdgeTest(untested, untested.copy())
    standardised = coarse.standardised(np.asarray([latent]))[:, 0]
    rows = fine.values[:, tested].T.tocsr()
    spread = fine.spread[tested, None]
    observed = (rows @ standardised[:, None]) / spread - TOLERANCE
    exceeding = np.zeros(tested.size, dtype=np.int64)
    largest = []
    units = exchangeable(coarse.group if strata is None else strata, coarse.together)
    blocks = _permuted(standardised, units, permutations, latent, seed, bytes_max)
    for permuted in blocks:
        height = max(1, bytes_max // (8 * permuted.shape[1]))
        best = np.full(permuted.shape[1], -np.inf)
        for start in range(0, tested.size, height):
            span = slice(start, start + height)
            r = (rows[span] @ permuted) / spread[span]
            exceeding[span] += (r >= observed[span]).sum(axis=1)
            best = np.maximum(best, r.max(axis=0))
        largest.append(best)
    ordered = np.sort(np.concatenate(largest))
    reached = permutations - np.searchsorted(ordered, observed[:, 0], side="left")
    alone, searched = untested.copy(), untested
    alone[tested] = (1 + exceeding) / (1 + permutations)
    searched[tested] = (1 + reached) / (1 + permutations)
    return EdgeTest(alone, searched)


def smallest_p(
    coarse: ActivationColumns,
    fine: ActivationColumns,
    latent: int,
    fine_latents: Indices,
    permutations: int,
    strata: Indices | None = None,
) -> Floats:
    """Return the p that the largest correlation would get of these activations, [fine latents].

    In each stratum both latents keep their values; the correlation is largest where these are
    sorted alike. A random permutation gives that with probability prod rows! prod columns! / (n!
    prod cells!), the law of a table of ties (Fisher 1935), which is not small where a latent fires
    seldom: its p cannot fall below, whatever the truth. The p of the search is never smaller.
    Where whole groups change places, the chance of any one pairing of groups bounds it from below.
    """
    units = exchangeable(coarse.group if strata is None else strata, coarse.together)
    left = coarse.values[:, [latent]].toarray()[:, 0]
    right = fine.values[:, fine_latents].toarray()
    logs = [
        sum(_log_chance_of_best(left[places], column[places]) for places in units)
        for column in right.T
    ]
    return np.asarray((1 + permutations * np.exp(logs)) / (1 + permutations), dtype=np.float64)


def _log_chance_of_best(left: Floats, right: Floats) -> float:
    """Return the log probability, or a bound below it, of the best pairing of units [units, k]."""
    if left.shape[1] == 1:
        return _log_chance_of_order(left[:, 0], right[:, 0])
    ties = (np.unique(side, axis=0, return_counts=True)[1] for side in (left, right))
    alike = max(float(scipy.special.gammaln(counts + 1).sum()) for counts in ties)
    return alike - float(scipy.special.gammaln(len(left) + 1))


def _log_chance_of_order(left: Floats, right: Floats) -> float:
    """Return the log probability that shuffled values are sorted as the others are."""
    rows = np.unique(np.sort(left), return_inverse=True)[1]
    columns = np.unique(np.sort(right), return_inverse=True)[1]
    cells = np.unique(rows * len(right) + columns, return_counts=True)[1]
    ties = np.bincount(rows), np.bincount(columns)
    chance = sum(float(scipy.special.gammaln(counts + 1).sum()) for counts in ties)
    chance -= float(scipy.special.gammaln(cells + 1).sum())
    return chance - float(scipy.special.gammaln(len(left) + 1))


def token_class(token: str) -> str:
    """Return what kind of token a prompt ends in: digits, punctuation, word start or word piece."""
    text = token.lstrip(" \u2581\u0120")
    if not any(character.isalnum() for character in text):
        return "punctuation"
    if any(character.isdigit() for character in text):
        return "digits"
    return "word piece" if text == token else "word start"


def exchangeable_strata(group: Indices, last_token: NDArray[np.str_] | None) -> Indices:
    """Return the number of each prompt's stratum, [prompts]: its group and its last token's class.

    A token that ends five prompts of a group or more is a class of its own. Without tokens
    the strata are the groups.
    """
    if last_token is None:
        return group
    names = [f"{number} {token}" for number, token in zip(group, last_token, strict=True)]
    _, place, count = np.unique(names, return_inverse=True, return_counts=True)
    often = count[place] >= FIRING_PROMPTS_MIN
    classes = [
        f"{number} token {token}" if own else f"{number} class {token_class(token)}"
        for number, token, own in zip(group, last_token, often, strict=True)
    ]
    return np.unique(classes, return_inverse=True)[1].astype(np.int64)


def _permuted(
    values: Floats, units: list[Indices], permutations: int, latent: int, seed: int, bytes_max: int
) -> Iterator[NDArray[np.float64]]:
    """Yield blocks [prompts, permutations] of ``values``, whole units permuted among their like.

    The draws come row by row from one key, so that the blocks change nothing.
    """
    generator = keyed_generator("permutation", seed, latent)
    step = max(1, bytes_max // (8 * len(values)))
    for start in range(0, permutations, step):
        draws = generator.random((min(step, permutations - start), len(values)))
        permuted = np.empty_like(draws)
        for places in units:
            order = np.argsort(draws[:, places[:, 0]], axis=1, kind="stable")
            permuted[:, places] = values[places][order]
        yield np.ascontiguousarray(permuted.T)
