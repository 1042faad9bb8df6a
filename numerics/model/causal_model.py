"""A causal language model as numerics sees it: a body, its blocks and the output head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.numerics.model.half_precision import linear

VOCABULARY_PER_CHUNK = 4_096
"""Logits computed at a time on a CPU: weights and logits of a chunk stay in its cache, which is
a fifth to a half faster than one product with 262,144 tokens."""
VOCABULARY_PER_CHUNK_CUDA = 65_536


@dataclass(frozen=True)
class OutputHead:
    """The unembedding: hidden states after the final norm to logits.

    logits = softcap · tanh(scale · (h Wᵀ + b) / softcap), without the tanh where ``softcap`` is
    None (Gemma 2 caps its logits at 30, for example).
    """

    weight: Float[Tensor, "vocabulary d_model"]
    bias: Float[Tensor, " vocabulary"] | None = None
    scale: float = 1.0
    softcap: float | None = None

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return int(self.weight.shape[0])

    def __call__(self, hidden: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows vocabulary"]:
        """Return the logits in float32."""
        logits = torch.empty(
            len(hidden), self.vocabulary, dtype=torch.float32, device=hidden.device
        )
        for start, part in self.chunks(hidden):
            logits[:, start : start + part.shape[1]] = part
        return logits

    def slice(
        self, hidden: Float[Tensor, "rows d_model"], start: int, stop: int
    ) -> Float[Tensor, "rows tokens"]:
        """Return the float32 logits of the tokens ``start`` to ``stop`` (exclusive)."""
        bias = None if self.bias is None else self.bias[start:stop]
        logits = linear(hidden, self.weight[start:stop], bias).float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits

    def finish(
        self, products: Float[Tensor, "tokens rows"], start: int
    ) -> Float[Tensor, "tokens rows"]:
        """Turn W h of the tokens from ``start`` on into their logits, in place, and return them."""
        if self.bias is not None:
            products += self.bias[start : start + len(products), None]
        if self.scale != 1.0:
            products *= self.scale
        if self.softcap is not None:
            products.div_(self.softcap).tanh_().mul_(self.softcap)
        return products

    def chunks(
        self, hidden: Float[Tensor, "rows d_model"]
    ) -> Iterator[tuple[int, Float[Tensor, "rows tokens"]]]:
        """Yield ``(first token, logits)`` over the vocabulary, in chunks that suit the device."""
        size = VOCABULARY_PER_CHUNK_CUDA if hidden.is_cuda else VOCABULARY_PER_CHUNK
        for start in range(0, self.vocabulary, size):
            yield start, self.slice(hidden, start, min(start + size, self.vocabulary))


@dataclass(frozen=True)
class BlockParts:
    """The submodules of a block: paths within it by TransformerLens' names, as ``mlp.out``.

    What the block lacks has no path. ``parallel`` blocks hand the MLP what attention reads, so
    nothing stands between the two.
    """

    paths: Mapping[str, str] = field(default_factory=dict)
    parallel: bool = False


@dataclass(frozen=True)
class CausalModel:
    """The parts of a causal language model that decoding and scoring need.

    ``body(input_ids, attention_mask, position_ids, ...)`` returns an object with
    ``last_hidden_state`` (after the final norm) and ``past_key_values``, as Hugging Face base
    models do; ``blocks`` are its transformer blocks in order, ``parts`` what each is made of.
    """

    body: Callable[..., Any]
    blocks: Sequence[nn.Module]
    head: OutputHead
    parts: BlockParts = BlockParts()
