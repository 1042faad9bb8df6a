"""TopK (Gao et al. 2024): ReLU of the k largest pre-activations of a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from loopscope.numerics.dictionaries.sparse import Margins, SparseDictionary, encode, rows_of


@dataclass(frozen=True)
class TopK(SparseDictionary):
    """Of equal pre-activations the lower latent wins. All latents of a row compete."""

    architecture: ClassVar[str] = "topk"

    k: int = field(kw_only=True)

    def __post_init__(self) -> None:
        """Raise ``ValueError`` also for a ``k`` that is not a number of latents."""
        super().__post_init__()
        if not 1 <= self.k <= self.d_sae:
            raise ValueError(f"topk needs 1 <= k <= {self.d_sae}, found {self.k}")

    def encode_block(
        self, x: Float[Tensor, "rows d_in"], latent_block: int
    ) -> scipy.sparse.csr_array:
        """Merge the best of each block of latents, so that the choice is that of the whole row."""
        values: Tensor | None = None
        latents: Tensor | None = None
        for start, hidden in self._hidden_blocks(x, latent_block):
            block_values, block_latents = _largest(hidden, self.k)
            block_latents = block_latents + start
            if values is None or latents is None:
                values, latents = block_values, block_latents
                continue
            merged = torch.cat([values, block_values], dim=1)
            order = torch.sort(merged, dim=1, descending=True, stable=True).indices[:, : self.k]
            values = merged.gather(1, order)
            latents = torch.cat([latents, block_latents], dim=1).gather(1, order)
        assert values is not None
        assert latents is not None
        rows, places = (values > 0).nonzero(as_tuple=True)
        coordinates = (rows.cpu().numpy(), latents[rows, places].cpu().numpy())
        return scipy.sparse.csr_array(
            (values[rows, places].cpu().numpy(), coordinates), shape=(x.shape[0], self.d_sae)
        )

    def with_margins(
        self, x: Float[Tensor, "rows d_in"], row_block: int, latent_block: int
    ) -> Margins:
        """Compare each activation with the largest pre-activation left out, 0 without one."""
        one_more = replace(self, k=min(self.k + 1, self.d_sae))
        found = encode(one_more, x, row_block, latent_block)
        rows = rows_of(found)
        falling = np.lexsort((found.indices, -found.data, rows))
        left_out = falling[np.arange(found.nnz) - found.indptr[rows] == self.k]
        edges, rivals = np.zeros(len(x)), np.full(len(x), -1)
        edges[rows[left_out]] = found.data[left_out]
        rivals[rows[left_out]] = found.indices[left_out]
        kept = np.ones(found.nnz, dtype=bool)
        kept[left_out] = False
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=len(x)))])
        parts = (found.data[kept], found.indices[kept], indptr.astype(found.indptr.dtype))
        chosen = scipy.sparse.csr_array(parts, shape=found.shape)
        return Margins(chosen, chosen.data - edges[rows[kept]], rivals)

    def _hidden_blocks(
        self, x: Float[Tensor, "rows d_in"], latent_block: int
    ) -> Iterator[tuple[int, Float[Tensor, "rows latents"]]]:
        """Yield (first latent, pre-activations) for each block of latents."""
        centred = self.centred(x)
        for start in range(0, self.d_sae, latent_block):
            latents = slice(start, start + latent_block)
            yield start, centred @ self.w_enc[:, latents] + self.b_enc[latents]
            self.release()


def _largest(
    hidden: Float[Tensor, "rows latents"], k: int
) -> tuple[Float[Tensor, "rows k"], Int64[Tensor, "rows k"]]:
    """Return the ``k`` largest of each row, falling; of equal values the lower latent first."""
    k = min(k, hidden.shape[1])
    latents = torch.topk(hidden, k, dim=1).indices.sort(dim=1).values
    smallest = hidden.gather(1, latents).min(dim=1, keepdim=True).values
    ambiguous = ((hidden >= smallest).sum(dim=1) > k) & (smallest[:, 0] > 0)
    if bool(ambiguous.any()):
        full = torch.sort(hidden[ambiguous], dim=1, descending=True, stable=True).indices
        latents[ambiguous] = full[:, :k].sort(dim=1).values
    values, order = torch.sort(hidden.gather(1, latents), dim=1, descending=True, stable=True)
    return values, latents.gather(1, order)
