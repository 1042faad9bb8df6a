"""Temporal (Lubana et al. 2025): what the tokens before predict is taken out, the rest is TopK.

As in SAELens (``TemporalSAE.encode_with_predictions``), with one layer of attention over latents.
A text is read as a whole, from its BOS on; then each row stands for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import scipy.sparse
import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics.architectures.topk import TopK
from loopscope.numerics.dictionaries.sparse import Axis, SparseDictionary


@dataclass(frozen=True)
class Temporal(TopK):
    """TopK of ``x - predicted``; rows are [x, predicted] side by side, as ``in_context`` has them.

    ``epsilon`` is added to the length of what is predicted, in the unit of ``x``.
    """

    architecture: ClassVar[str] = "temporal"
    reads_context: ClassVar[bool] = True
    required_tensors: ClassVar[Mapping[str, tuple[Axis, ...]]] = {
        **SparseDictionary.required_tensors,
        "w_query": ("d_attn", "d_sae"),
        "b_query": ("d_attn",),
        "w_key": ("d_attn", "d_sae"),
        "b_key": ("d_attn",),
        "w_value": ("d_sae", "d_sae"),
        "b_value": ("d_sae",),
        "w_mixed": ("d_sae", "d_sae"),
        "b_mixed": ("d_sae",),
    }

    w_query: Float[Tensor, "d_attn d_sae"] = field(kw_only=True)
    b_query: Float[Tensor, " d_attn"] = field(kw_only=True)
    w_key: Float[Tensor, "d_attn d_sae"] = field(kw_only=True)
    b_key: Float[Tensor, " d_attn"] = field(kw_only=True)
    w_value: Float[Tensor, "d_sae d_sae"] = field(kw_only=True)
    b_value: Float[Tensor, " d_sae"] = field(kw_only=True)
    w_mixed: Float[Tensor, "d_sae d_sae"] = field(kw_only=True)
    b_mixed: Float[Tensor, " d_sae"] = field(kw_only=True)
    heads: int = field(kw_only=True)
    epsilon: float = field(kw_only=True)

    def __post_init__(self) -> None:
        """Raise ``ValueError`` also where latents or queries cannot be divided among the heads."""
        super().__post_init__()
        if self.heads < 1 or self.d_sae % self.heads or len(self.w_query) % self.heads:
            raise ValueError(
                f"{self.d_sae} latents and queries of {len(self.w_query)} numbers cannot be "
                f"divided among {self.heads} heads"
            )
        if not self.apply_b_dec_to_input:
            raise ValueError("temporal takes its decoder bias from the rows that it reads")

    @property
    def sizes(self) -> dict[Axis, int]:
        """Length of each axis."""
        return {**super().sizes, "d_attn": int(self.w_query.shape[0])}

    @torch.no_grad()
    def in_context(self, text: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens read"]:
        """Return each row of a text with what the rows before it predict of it, [x, predicted]."""
        text = text.float()
        centred = text - self.b_dec
        target = torch.relu(centred @ self.w_enc)
        before = torch.cat([torch.zeros_like(target[:1]), target[:-1]])
        codes = torch.relu(self._attended(before, target))
        direction = codes @ self.w_dec
        length = torch.linalg.vector_norm(direction, dim=1, keepdim=True) + self.epsilon
        share = (direction * centred).sum(dim=1, keepdim=True) / length.square()
        self.release()
        return torch.cat([text, share * direction], dim=1)

    def _attended(
        self, before: Float[Tensor, "tokens d_sae"], target: Float[Tensor, "tokens d_sae"]
    ) -> Float[Tensor, "tokens d_sae"]:
        """Return what each token attends to among the codes of the tokens up to the one before."""
        linear = torch.nn.functional.linear
        parts = (
            linear(target, self.w_query, self.b_query),
            linear(before, self.w_key, self.b_key),
            linear(before, self.w_value, self.b_value),
        )
        query, key, value = (
            torch.unflatten(one, 1, (self.heads, -1)).transpose(0, 1) for one in parts
        )
        found = torch.nn.functional.scaled_dot_product_attention(
            query[None], key[None], value[None], is_causal=True
        )
        return linear(found[0].transpose(0, 1).flatten(1), self.w_mixed, self.b_mixed)

    def centred(self, x: Float[Tensor, "rows read"]) -> Float[Tensor, "rows d_in"]:
        """Return what is new in each row. Raises ``ValueError`` for rows without their context."""
        row, predicted = self._parts(x)
        return row - predicted - self.b_dec

    def lengths(self, x: Float[Tensor, "rows read"]) -> Float[Tensor, " rows"]:
        """Count the row and what is predicted of it apart: their difference may be small."""
        row, predicted = self._parts(x)
        parts = (row - self.b_dec, predicted)
        return torch.stack([torch.linalg.vector_norm(one, dim=1) for one in parts]).sum(dim=0)

    def reconstruct(
        self, x: Float[Tensor, "rows read"], activations: scipy.sparse.csr_array
    ) -> Float[Tensor, "rows d_in"]:
        """Add what is predicted to what the latents stand for."""
        return super().reconstruct(x, activations) + self._parts(x)[1]

    def _parts(self, x: Float[Tensor, "rows read"]) -> tuple[Tensor, Tensor]:
        if x.shape[1] != 2 * self.d_in:
            raise ValueError(
                f"a temporal dictionary reads rows of {2 * self.d_in} numbers, as its in_context "
                f"returns them, found {x.shape[1]}"
            )
        return x[:, : self.d_in], x[:, self.d_in :]
