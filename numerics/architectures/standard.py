"""The standard architecture: ReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from loopscope.numerics.architectures.pointwise import Pointwise


@dataclass(frozen=True)
class Standard(Pointwise):
    """``relu((x - b_dec) @ w_enc + b_enc)``; without ``apply_b_dec_to_input`` x as it is."""

    architecture: ClassVar[str] = "standard"

    def activate(
        self, centred: Float[Tensor, "rows d_in"], latents: slice
    ) -> Float[Tensor, "rows latents"]:
        """Return what lies above 0."""
        hidden = self.hidden(centred, latents)
        return hidden.masked_fill_(~(hidden > 0), 0.0)
