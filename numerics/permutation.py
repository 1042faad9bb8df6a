"""Whether a coarse and a fine latent go together beyond what their condition explains.

Prompts are permuted within their condition, so both condition means stay as they are. The
marginal correlation is then a rising function of the one within conditions: one p serves both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.mapping import COLUMN_BYTES_MAX, ActivationColumns, Indices
from loopscope.numerics.multiple_tests import Floats
from loopscope.numerics.perfect import FIRING_PROMPTS_MIN
from loopscope.numerics.sampling import keyed_generator
from loopscope.numerics.splits import exchangeable

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
    bytes_max: int = COLUMN_BYTES_MAX,
) -> EdgeTest:
    """Permute the prompts of ``latent`` within condition: p = (1 + k) / (1 + permutations).

    Prompts that belong together change places as a whole. Both columns are centred within
    condition. k counts permutations with a correlation as large as the observed one (Phipson and
    Smyth 2010: never 0). Not tested are latents that are constant within conditions or fire on
    fewer than five prompts; without permutations nothing is tested.
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
    units = exchangeable(coarse.group, coarse.together)
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
