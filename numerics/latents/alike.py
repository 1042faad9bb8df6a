"""Latents alike in some covariates, drawn in the places of others: controls that mean nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.statistics.keyed import keyed_generator

Floats = NDArray[np.float64]
POOL = 20
"""Latents that one is drawn from: the nearest ones."""
SPREAD_MIN = 1e-3


def standardised(columns: Sequence[Floats], among: NDArray[np.bool_]) -> Floats:
    """Return [latents, columns] in standard deviations over ``among``; what is constant is out."""
    found = []
    for column in columns:
        own = column[among]
        if own.size and own.std() > SPREAD_MIN * max(1.0, abs(float(own.mean()))):
            found.append((column - own.mean()) / own.std())
    return np.stack(found, axis=1) if found else np.zeros((len(among), 0))


def log_positive(values: Floats) -> Floats:
    """Return logarithms; what is 0 stands at half of the smallest other value."""
    seen = values[values > 0]
    return np.asarray(np.log(np.maximum(values, seen.min() / 2 if seen.size else 1.0)))


def drawn_alike(
    coordinates: Floats,
    eligible: NDArray[np.bool_],
    wanted: Sequence[int],
    draws: int,
    *key: str | int,
) -> list[list[int]]:
    """Return ``draws`` sets with one latent for each of ``wanted``, in their order.

    Each is drawn among the ``POOL`` eligible ones that come nearest in the coordinates [latents,
    columns] (Euclidean, ties by number), none twice in a set. Empty where too few are eligible.
    """
    pools = []
    free = np.flatnonzero(eligible)
    if len(free) < len(wanted):
        return []
    for latent in wanted:
        distance = np.linalg.norm(coordinates[free] - coordinates[latent], axis=1)
        pools.append(free[np.lexsort((free, distance))])
    found = []
    for draw in range(draws):
        generator, taken = keyed_generator("alike", *key, draw), list[int]()
        for pool in pools:
            near = pool[~np.isin(pool, taken)][:POOL]
            taken.append(int(near[generator.integers(0, len(near))]))
        found.append(taken)
    return found
