"""Pairs of the same cosine on prompts that are not about the concept.

Two latents whose decoder rows point alike read much the same of a residual vector, so they go
together in nearly any prompts. That an edge is *not independent* is then expected; that it goes
together more than other pairs of its cosine would not be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from loopscope.numerics.latents.mapping import (
    ActivationColumns,
    Indices,
    correlations,
    inverse_norms,
    made_unit,
)
from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.statistics.multiple_tests import Floats
from loopscope.numerics.statistics.perfect import FIRING_PROMPTS_MIN

LATENTS_MAX = 200
"""Coarse latents whose pairs are looked at, drawn where there are more."""
PAIRS_MAX = 500
COSINE_WINDOW = 0.05
FINE_PER_BLOCK = 4_096


@dataclass(frozen=True)
class SameCosine:
    """Pairs of a coarse latent that is not a candidate with any tested fine latent.

    There may be fifty million, so only their cosines are held, in float32; correlations within
    condition are computed of those pairs that an edge is compared with.
    """

    decoders: tuple[Float[Tensor, "coarse d_in"], Float[Tensor, "fine d_in"]]
    coarse: ActivationColumns
    fine: ActivationColumns
    left: Indices
    right: Indices
    on_block: Callable[[], None] = lambda: None

    @staticmethod
    def of(
        decoders: tuple[Float[Tensor, "coarse d_in"], Float[Tensor, "fine d_in"]],
        coarse: ActivationColumns,
        fine: ActivationColumns,
        candidates: Indices,
        seed: int,
        on_block: Callable[[], None] = lambda: None,
    ) -> SameCosine:
        """Return the pairs of at most ``LATENTS_MAX`` coarse latents; both columns are centred.

        ``on_block`` is called after each block of the fine decoder that was read.
        """
        left = np.setdiff1d(_tested(coarse), candidates)
        left = keyed_generator("same cosine", seed).permutation(left)[:LATENTS_MAX]
        return SameCosine(decoders, coarse, fine, left, _tested(fine), on_block)

    def compared(self, cosines: Floats, correlations: Floats) -> tuple[Floats, Indices]:
        """Return (p, pairs) of each edge: (1 + pairs with as high an r) / (1 + pairs).

        The pairs are the nearest ``PAIRS_MAX`` within ``COSINE_WINDOW`` of the edge's cosine, of
        equally near ones the lower cosine first. p is NaN without any, and for an edge without r.
        """
        p, pairs = np.full(len(cosines), np.nan), np.zeros(len(cosines), dtype=np.int64)
        reaches = [self._reach(float(cosine)) for cosine in cosines]
        near = self._near([(low, high) for low, high, _ in reaches])
        for place, (cosine, r) in enumerate(zip(cosines, correlations, strict=True)):
            low, high, pairs[place] = reaches[place]
            if pairs[place] and not np.isnan(r):
                span = slice(*np.searchsorted(near[0], [low, _above(high)]))
                distance = np.abs(near[0][span].astype(np.float64) - cosine)
                nearest = np.argsort(distance, kind="stable")[: pairs[place]]
                p[place] = (1 + (near[1][span][nearest] >= r).sum()) / (1 + pairs[place])
        return p, pairs

    @cached_property
    def _sorted(self) -> NDArray[np.float32]:
        found = np.empty(len(self.left) * len(self.right), dtype=np.float32)
        done = 0
        for _, block in self._cosine_blocks():
            found[done : done + block.size] = block.ravel()
            done += block.size
        found.sort()
        return found

    def _cosine_blocks(self) -> Iterator[tuple[Indices, NDArray[np.float32]]]:
        """Yield fine latents and the cosines [left, fine latents] to them."""
        rows, fine = (decoder.float() for decoder in self.decoders)
        unit = rows[torch.from_numpy(self.left)]
        unit = unit * inverse_norms(unit)[:, None]
        space = fine.new_empty(min(FINE_PER_BLOCK, len(self.right)), fine.shape[1])
        for start in range(0, len(self.right), FINE_PER_BLOCK):
            latents = self.right[start : start + FINE_PER_BLOCK]
            block = made_unit(fine[torch.from_numpy(latents)], space)
            yield latents, (unit @ block.T).cpu().numpy()
            self.on_block()

    def _reach(self, cosine: float) -> tuple[np.float32, np.float32, int]:
        """Return between which cosines the pairs of an edge lie, and how many they are."""
        known = self._sorted
        low, high = np.searchsorted(
            known, [_ceiling(cosine - COSINE_WINDOW), _ceiling(cosine + COSINE_WINDOW)]
        )
        place = int(np.clip(np.searchsorted(known, _ceiling(cosine)), low, high))
        low, high = max(low, place - PAIRS_MAX), min(high, place + PAIRS_MAX)
        near = known[low:high]
        if near.size > PAIRS_MAX:
            distance = np.abs(near.astype(np.float64) - cosine)
            near = near[np.sort(np.argsort(distance, kind="stable")[:PAIRS_MAX])]
        if not near.size:
            return np.float32(cosine), np.float32(cosine), 0
        return near[0], near[-1], near.size

    def _near(
        self, reaches: list[tuple[np.float32, np.float32]]
    ) -> tuple[NDArray[np.float32], Floats]:
        """Return cosines (rising) and correlations of all pairs that some edge reaches."""
        starts, ends = _merged(reaches)
        cosines, found = [np.empty(0, dtype=np.float32)], [np.empty(0)]
        for latents, block in self._cosine_blocks() if len(starts) else ():
            place = np.searchsorted(starts, block, side="right") - 1
            inside = (place >= 0) & (block <= ends[place])
            if inside.any():
                r = correlations(self.coarse, self.fine, self.left, latents)
                cosines.append(block[inside])
                found.append(r[inside])
        cosine, r = np.concatenate(cosines), np.concatenate(found)
        order = np.argsort(cosine, kind="stable")
        return cosine[order], r[order]


def _tested(columns: ActivationColumns) -> Indices:
    return np.flatnonzero((columns.spread > 0) & (columns.firing >= FIRING_PROMPTS_MIN))


def _ceiling(value: float) -> np.float32:
    """Return the least float32 that is not below ``value``."""
    found = np.float32(value)
    return found if float(found) >= value else _above(found)


def _above(value: np.float32) -> np.float32:
    return np.float32(np.nextafter(value, np.float32(np.inf)))


def _merged(
    reaches: list[tuple[np.float32, np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return where the union of closed intervals starts and ends, rising and apart."""
    starts: list[np.float32] = []
    ends: list[np.float32] = []
    for low, high in sorted(reaches):
        if ends and low <= ends[-1]:
            ends[-1] = max(ends[-1], high)
        else:
            starts.append(low)
            ends.append(high)
    return np.asarray(starts, dtype=np.float32), np.asarray(ends, dtype=np.float32)
