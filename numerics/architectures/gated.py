"""Gated (Rajamanoharan et al. 2024): one encoder says which latents fire, another how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics.architectures.pointwise import Pointwise
from loopscope.numerics.dictionaries.sparse import Axis, Margins, encode, rows_of

GATES_PER_CHUNK = 16_384
"""Gates computed one by one at a time, each with a copy of its row and its encoder's column."""


@dataclass(frozen=True)
class Gated(Pointwise):
    """Where ``x @ w_enc + b_enc`` exceeds 0: ``relu(x @ (w_enc * exp(r_mag)) + b_mag)``."""

    architecture: ClassVar[str] = "gated"
    required_tensors: ClassVar[Mapping[str, tuple[Axis, ...]]] = {
        **Pointwise.required_tensors,
        "r_mag": ("d_sae",),
        "b_mag": ("d_sae",),
    }

    r_mag: Float[Tensor, " d_sae"] = field(kw_only=True)
    b_mag: Float[Tensor, " d_sae"] = field(kw_only=True)

    def activate(
        self, centred: Float[Tensor, "rows d_in"], latents: slice
    ) -> Float[Tensor, "rows latents"]:
        """Return the magnitudes of the latents whose gate is open."""
        opened = self.hidden(centred, latents) > 0
        encoder = self.w_enc[:, latents] * self.r_mag[latents].exp()
        magnitude = (centred @ encoder + self.b_mag[latents]).relu_()
        return magnitude.masked_fill_(~opened, 0.0)

    def with_margins(
        self, x: Float[Tensor, "rows d_in"], row_block: int, latent_block: int
    ) -> Margins:
        """Compare gate and magnitude with 0, both in the unit of the gate: the smaller counts."""
        found = encode(self, x, row_block, latent_block)
        rows, latents = rows_of(found), found.indices
        centred, columns = self.centred(x.float()), self.w_enc.T
        gates = np.zeros(found.nnz)
        for start in range(0, found.nnz, GATES_PER_CHUNK):
            part = slice(start, start + GATES_PER_CHUNK)
            chosen = torch.from_numpy(latents[part]).long().to(x.device)
            own = centred[torch.from_numpy(rows[part]).long().to(x.device)]
            sums = (own * columns[chosen]).sum(dim=1) + self.b_enc[chosen]
            gates[part] = sums.double().cpu().numpy()
        scale = self.r_mag.double().exp().cpu().numpy()
        return Margins(found, np.minimum(gates, found.data / scale[latents]), np.full(len(x), -1))
