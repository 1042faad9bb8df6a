"""Reach of steering: which tokens of each row it acts on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from loopscope.numerics.model.batching import TokenBatch


@dataclass(frozen=True)
class Reach:
    """Places of each row's opening that are steered, and whether what it generates is.

    ``lengths`` are the openings' tokens with BOS, which is place 0 and never steered.
    """

    lengths: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]
    generated: tuple[bool, ...]

    @staticmethod
    def everywhere(openings: Sequence[Sequence[int]]) -> Reach:
        """Return the reach of all tokens but BOS."""
        lengths = tuple(map(len, openings))
        places = tuple(tuple(range(1, length)) for length in lengths)
        return Reach(lengths, places, (True,) * len(lengths))

    def of(self, rows: Sequence[int]) -> Reach:
        """Return the reach of some rows."""
        return Reach(
            tuple(self.lengths[row] for row in rows),
            tuple(self.places[row] for row in rows),
            tuple(self.generated[row] for row in rows),
        )

    def mask(self, batch: TokenBatch) -> Bool[Tensor, "rows width"]:
        """Return where a batch of the openings is steered, with or without what they generate.

        Raises ValueError for a batch of other rows, and for BOS.
        """
        rows, width = batch.mask.shape
        if len(self.lengths) != rows or any(0 in own for own in self.places):
            raise ValueError("a reach names places but BOS of each row of its batch")
        by_place = torch.zeros(rows, width + 1, dtype=torch.bool)
        for row, length in enumerate(self.lengths):
            by_place[row, list(self.places[row])] = True
            by_place[row, length:] = self.generated[row]
        found = by_place.to(batch.mask.device).gather(1, batch.position_ids)
        return found & batch.mask

    def next_tokens(self) -> Bool[Tensor, "rows 1"]:
        """Return where a pass over one generated token of each row is steered."""
        return torch.tensor(self.generated, dtype=torch.bool)[:, None]
