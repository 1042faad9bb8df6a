"""The logit lens: which tokens a direction of the residual stream pushes up and down.

nostalgebraist 2020, "interpreting GPT: the logit lens"; of decoder rows as SAEDashboard and
Neuronpedia show it. It is the direct path alone: what later blocks make of the direction is not in
it, and what the final norm divides by is left out, since it is the same for all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics.model.causal_model import VOCABULARY_PER_CHUNK, OutputHead
from loopscope.numerics.model.normalisation import Normalisation


@dataclass(frozen=True)
class PushedTokens:
    """The tokens that each row pushes most, the strongest first; ``down`` the most negative."""

    up: Int[Tensor, "rows k"]
    up_logits: Float[Tensor, "rows k"]
    down: Int[Tensor, "rows k"]
    down_logits: Float[Tensor, "rows k"]


@torch.no_grad()
def pushed_tokens(
    head: OutputHead,
    norm: Normalisation,
    rows: Float[Tensor, "rows d_model"],
    k: int,
    vocabulary: int,
) -> PushedTokens:
    """Return the ``k`` tokens below ``vocabulary`` that unit rows push most either way.

    logit = scale · W (g ∘ u), u the unit row, less its mean where the norm takes it, g the gain of
    the norm. Bias and cap of the head change no order among tokens, or none of the direction.
    """
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    unit = rows / torch.where(lengths > 0, lengths, torch.ones_like(lengths))
    if norm.centres:
        unit = unit - unit.mean(dim=1, keepdim=True)
    hidden = unit * norm.gain.to(unit)
    stop = min(vocabulary, head.vocabulary)
    high, low = _Largest(k), _Largest(k)
    for start in range(0, stop, VOCABULARY_PER_CHUNK):
        weight = head.weight[start : min(start + VOCABULARY_PER_CHUNK, stop)].to(hidden)
        logits = hidden @ weight.T * head.scale
        high.add(logits, start)
        low.add(-logits, start)
    return PushedTokens(high.columns, high.values, low.columns, -low.values)


class _Largest:
    """The largest values of each row over all blocks of columns seen so far."""

    def __init__(self, k: int) -> None:
        self._k = k
        self.values = torch.empty(0)
        self.columns = torch.empty(0, dtype=torch.long)

    def add(self, block: Float[Tensor, "rows columns"], first: int) -> None:
        columns = torch.arange(first, first + block.shape[1], device=block.device)
        columns = columns.expand_as(block)
        if self.values.ndim == 2:
            block = torch.cat([self.values, block], dim=1)
            columns = torch.cat([self.columns, columns], dim=1)
        kept = block.topk(min(self._k, block.shape[1]), dim=1)
        self.values, self.columns = kept.values, columns.gather(1, kept.indices)
