"""JumpReLU (Rajamanoharan et al. 2024): ReLU above a threshold of each latent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from loopscope.numerics.architectures.pointwise import Pointwise
from loopscope.numerics.dictionaries.sparse import Axis


@dataclass(frozen=True)
class JumpRelu(Pointwise):
    """The pre-activation of ``standard`` where it exceeds 0 and the latent's ``threshold``."""

    architecture: ClassVar[str] = "jumprelu"
    required_tensors: ClassVar[Mapping[str, tuple[Axis, ...]]] = {
        **Pointwise.required_tensors,
        "threshold": ("d_sae",),
    }

    threshold: Float[Tensor, " d_sae"] = field(kw_only=True)

    def activate(
        self, centred: Float[Tensor, "rows d_in"], latents: slice
    ) -> Float[Tensor, "rows latents"]:
        """Return what lies above 0 and above the threshold."""
        hidden = self.hidden(centred, latents)
        fires = (hidden > 0) & (hidden > self.threshold[latents])
        return hidden.masked_fill_(~fires, 0.0)

    def edges(self) -> NDArray[np.float64]:
        """Return the larger of 0 and the threshold."""
        return np.asarray(np.maximum(0.0, self.threshold.double().cpu().numpy()))
