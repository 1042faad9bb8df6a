"""Edges of a splitting graph: from coarse latents to the fine ones that carry them on.

An edge is a pair that reads *match*: decoder rows at a cosine of at least ``cosine_min``, prompt
activations at a correlation of at least ``correlation_min``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.latents.mapping import ActivationColumns, Indices, pair_correlations
from loopscope.numerics.latents.splits import DiscoverRows
from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.statistics.multiple_tests import Floats

NESTED_MIN = 0.8
"""Share of a latent's prompts on which a wider one fires, too, for it to lie within that one."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class EdgeRules:
    """When two latents are one edge, and when the fine one is the coarse one's twin."""

    cosine_min: float
    correlation_min: float
    twin_cosine_min: float


@dataclass(frozen=True)
class NearPairs:
    """Pairs of latents at a cosine of at least ``cosine_min``, each once: three arrays [pairs]."""

    coarse: Indices
    fine: Indices
    cosine: Floats

    def taken(self, chosen: Bools | Indices) -> NearPairs:
        """Return some of the pairs."""
        return NearPairs(self.coarse[chosen], self.fine[chosen], self.cosine[chosen])


@dataclass(frozen=True)
class Edges:
    """Edges [edges] with the correlation of each.

    ``direct`` is false where another parent of the fine latent is nearer to it and lies within the
    coarse one, or this within that: the edge goes through the other. ``twin``: of all edges of
    either latent this has the highest cosine, and at least ``twin_cosine_min``.
    """

    pairs: NearPairs
    correlation: Floats
    direct: Bools
    twin: Bools

    def __len__(self) -> int:
        """Return how many edges there are."""
        return len(self.correlation)

    def taken(self, chosen: Bools) -> Edges:
        """Return some of the edges, as they are."""
        pairs, correlation = self.pairs.taken(chosen), self.correlation[chosen]
        return Edges(pairs, correlation, self.direct[chosen], self.twin[chosen])

    @property
    def kept(self) -> NearPairs:
        """The direct edges."""
        return self.pairs.taken(self.direct)


def edges_of(
    near: NearPairs, coarse: ActivationColumns, fine: ActivationColumns, rules: EdgeRules
) -> Edges:
    """Return the edges among near pairs, by coarse latent, then fine latent.

    A pair of which one latent does not vary on these prompts has no correlation, so is no edge.
    """
    correlation = pair_correlations(coarse, fine, near.coarse, near.fine)
    matched = np.flatnonzero(correlation >= rules.correlation_min)  # false for NaN
    order = matched[np.lexsort((near.fine[matched], near.coarse[matched]))]
    pairs = near.taken(order)
    return Edges(pairs, correlation[order], _direct(pairs, coarse), _twins(pairs, rules))


def _direct(pairs: NearPairs, coarse: ActivationColumns) -> Bools:
    direct = np.ones(len(pairs.fine), dtype=np.bool_)
    for child in np.flatnonzero(np.bincount(pairs.fine) > 1) if pairs.fine.size else ():
        places = np.flatnonzero(pairs.fine == child)
        within = _within(coarse, pairs.coarse[places])
        nearer = pairs.cosine[places][None, :] > pairs.cosine[places][:, None]
        nested = within ^ within.T  # not those that fire on the same prompts
        direct[places] = ~(nested & nearer).any(axis=1)
    return direct


def _within(columns: ActivationColumns, latents: Indices) -> Bools:
    """Return which latents lie within which, [narrow, wide]: P(wide fires given narrow) is high."""
    fires = (columns.values[:, latents] > 0).astype(np.float64)
    both = (fires.T @ fires).toarray()
    each = np.diag(both)
    return np.asarray(both >= NESTED_MIN * each[:, None]) & (each > 0)[:, None]


def _twins(pairs: NearPairs, rules: EdgeRules) -> Bools:
    if not pairs.fine.size:
        return np.zeros(0, dtype=np.bool_)
    best_of_coarse = np.full(int(pairs.coarse.max()) + 1, -np.inf)
    best_of_fine = np.full(int(pairs.fine.max()) + 1, -np.inf)
    np.maximum.at(best_of_coarse, pairs.coarse, pairs.cosine)
    np.maximum.at(best_of_fine, pairs.fine, pairs.cosine)
    mutual = (pairs.cosine == best_of_coarse[pairs.coarse]) & (
        pairs.cosine == best_of_fine[pairs.fine]
    )
    return np.asarray(mutual & (pairs.cosine >= rules.twin_cosine_min))


def dealt_edge_counts(
    near: NearPairs,
    coarse: ActivationColumns,
    fine: ActivationColumns,
    rules: EdgeRules,
    key: tuple[str | int, ...],
    draws: int,
    on_draw: Callable[[int], None] = lambda done: None,
) -> Indices:
    """Return how many edges there are when activations are dealt to other fine rows: [draws].

    Every cosine stays; the activations of all fine latents that vary are permuted among these. It
    is the gate's control *permuted pairs*, counted over all edges.
    """
    living = np.flatnonzero(fine.spread > 0)
    known = np.isin(near.fine, living) & (coarse.spread[near.coarse] > 0)
    left, right = near.coarse[known], near.fine[known]
    counts = np.zeros(draws, dtype=np.int64)
    for draw in range(draws if left.size else 0):
        on_draw(draw)
        dealt = np.arange(fine.latents)
        dealt[living] = keyed_generator("dealt edges", *key, draw).permutation(living)
        r = pair_correlations(coarse, fine, left, dealt[right])
        counts[draw] = (r >= rules.correlation_min).sum()
    return counts


def edge_stability(
    edges: Edges,
    coarse: DiscoverRows,
    fine: DiscoverRows,
    rules: EdgeRules,
    key: tuple[str | int, ...],
    resamples: int,
) -> Floats:
    """Return of each edge the share of random halves of the prompts on which it is one: [edges].

    Halves keep groups together and both conditions in proportion, as those of the gate do.
    """
    if not len(edges):
        return np.zeros(0)
    names, left = np.unique(edges.pairs.coarse, return_inverse=True)
    others, right = np.unique(edges.pairs.fine, return_inverse=True)
    sides = coarse.latents(names), fine.latents(others)
    found = np.zeros(len(edges))
    for number in range(resamples):
        left_half, right_half = (
            ActivationColumns.of(side.halved(keyed_generator("edges by halves", *key, number)))
            for side in sides
        )
        r = pair_correlations(left_half, right_half, left, right)
        found += r >= rules.correlation_min
    return found / resamples
