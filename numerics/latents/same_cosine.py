"""Pairs of the same cosine on prompts that are not about the concept.

Two latents whose decoder rows point alike read much the same of a residual vector, so they go
together in nearly any prompts. That an edge is *not independent* is then expected; that it goes
together more than other pairs of its cosine would not be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics.latents.mapping import (
    ActivationColumns,
    Indices,
    correlations,
    inverse_norms,
)
from loopscope.numerics.statistics.multiple_tests import Floats
from loopscope.numerics.statistics.perfect import FIRING_PROMPTS_MIN
from loopscope.numerics.statistics.sampling import keyed_generator

LATENTS_MAX = 200
"""Coarse latents whose pairs are looked at, drawn where there are more."""
PAIRS_MAX = 500
COSINE_WINDOW = 0.05


@dataclass(frozen=True)
class SameCosine:
    """Pairs of a coarse latent that is not a candidate with any tested fine latent, [pairs].

    ``cosines`` rise; ``correlations`` are those within condition.
    """

    cosines: Floats
    correlations: Floats

    @staticmethod
    def of(
        decoders: tuple[Float[Tensor, "coarse d_in"], Float[Tensor, "fine d_in"]],
        coarse: ActivationColumns,
        fine: ActivationColumns,
        candidates: Indices,
        seed: int,
    ) -> SameCosine:
        """Return the pairs of at most ``LATENTS_MAX`` coarse latents; both columns are centred."""
        left = np.setdiff1d(_tested(coarse), candidates)
        left = keyed_generator("same cosine", seed).permutation(left)[:LATENTS_MAX]
        right = _tested(fine)
        rows, columns = (
            (decoder[torch.from_numpy(latents)] * scale[torch.from_numpy(latents), None])
            for decoder, latents in zip(decoders, (left, right), strict=True)
            for scale in (inverse_norms(decoder),)
        )
        cosines = (rows @ columns.T).double().cpu().numpy().ravel()
        order = np.argsort(cosines, kind="stable")
        found = correlations(coarse, fine, left, right).ravel()
        return SameCosine(cosines[order], found[order])

    def compared(self, cosines: Floats, correlations: Floats) -> tuple[Floats, Indices]:
        """Return (p, pairs) of each edge: (1 + pairs with as high an r) / (1 + pairs).

        The pairs are the nearest ``PAIRS_MAX`` within ``COSINE_WINDOW`` of the edge's cosine. p
        is NaN without any, and for an edge without r.
        """
        p, pairs = np.full(len(cosines), np.nan), np.zeros(len(cosines), dtype=np.int64)
        for place, (cosine, r) in enumerate(zip(cosines, correlations, strict=True)):
            near = self._near(float(cosine))
            pairs[place] = near.size
            if near.size and not np.isnan(r):
                p[place] = (1 + (self.correlations[near] >= r).sum()) / (1 + near.size)
        return p, pairs

    def _near(self, cosine: float) -> Indices:
        low, high = np.searchsorted(
            self.cosines, [cosine - COSINE_WINDOW, cosine + COSINE_WINDOW], side="left"
        )
        near = np.arange(low, high)
        distance = np.abs(self.cosines[near] - cosine)
        return near[np.argsort(distance, kind="stable")[:PAIRS_MAX]]


def _tested(columns: ActivationColumns) -> Indices:
    return np.flatnonzero((columns.spread > 0) & (columns.firing >= FIRING_PROMPTS_MIN))
