"""Architectures whose latents fire each for itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from loopscope.numerics.dictionaries.sparse import Margins, SparseDictionary, encode


@dataclass(frozen=True)
class Pointwise(SparseDictionary):
    """A dictionary in which what a latent reads depends on no other latent.

    So any latents can be taken out of it, and rows can be encoded latents by latents.
    """

    @abstractmethod
    def activate(
        self, centred: Float[Tensor, "rows d_in"], latents: slice
    ) -> Float[Tensor, "rows latents"]:
        """Return the activations of a range of latents, 0 where one is silent or undefined."""

    def hidden(
        self, centred: Float[Tensor, "rows d_in"], latents: slice
    ) -> Float[Tensor, "rows latents"]:
        """Return the pre-activations of a range of latents, in memory of their own."""
        return centred @ self.w_enc[:, latents] + self.b_enc[latents]

    def edges(self) -> NDArray[np.float64]:
        """Return for each latent the pre-activation up to which it is silent."""
        return np.zeros(self.d_sae)

    def encode_block(
        self, x: Float[Tensor, "rows d_in"], latent_block: int
    ) -> scipy.sparse.csr_array:
        """Encode block by block of latents."""
        centred = self.centred(x)
        parts = []
        for start in range(0, self.d_sae, latent_block):
            found = self.activate(centred, slice(start, start + latent_block))
            rows, latents = (found > 0).nonzero(as_tuple=True)
            coordinates = (rows.cpu().numpy(), latents.cpu().numpy())
            values = found[rows, latents].cpu().numpy()
            self.release()
            parts.append(scipy.sparse.csr_array((values, coordinates), shape=tuple(found.shape)))
        return parts[0] if len(parts) == 1 else scipy.sparse.hstack(parts, format="csr")

    def with_margins(
        self, x: Float[Tensor, "rows d_in"], row_block: int, latent_block: int
    ) -> Margins:
        """Compare each activation with the edge of its latent."""
        found = encode(self, x, row_block, latent_block)
        return Margins(found, found.data - self.edges()[found.indices], np.full(len(x), -1))

    def subset(self, latents: Sequence[int]) -> tuple[SparseDictionary, tuple[int, ...]]:
        """Return these latents alone, in their order."""
        chosen = list(latents)
        parts = {
            name: getattr(self, name)[tuple(chosen if a == "d_sae" else slice(None) for a in axes)]
            for name, axes in self.required_tensors.items()
        }
        return replace(self, **parts), tuple(range(len(chosen)))

    def activations(
        self, x: Float[Tensor, "rows d_in"], latents: Sequence[int]
    ) -> Float[Tensor, "rows latents"]:
        """Encode densely: where rows and latents are few nothing leaves the device."""
        return self.activate(self.centred(x.float()), slice(None))[:, list(latents)]
