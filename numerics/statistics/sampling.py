"""Counter-based draws and inverse-CDF sampling: rows that do not depend on one another.

A shared random stream would make a sample depend on batch size and arm order. Here the uniform
of (prompt, sample, step) comes from a key, so every arm of a prompt sees the same numbers
(common random numbers).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from loopscope.numerics.statistics.keyed import keyed_generator


@dataclass(frozen=True)
class SamplingRule:
    """How a token is drawn: ``top_k`` 0 keeps all, ``top_p`` 1 keeps all, ``greedy`` wins."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False


def uniforms(seed: int, prompt_id: str, sample: int, steps: int) -> NDArray[np.float64]:
    """Return the draws in [0, 1) of one sample of one prompt, the same for every arm.

    Philox counts up from the key: draw ``i`` is the same whatever ``steps`` is.
    """
    return keyed_generator("token", seed, prompt_id, sample).random(steps)


def random_direction(seed: int, draw: int, d_model: int) -> Float[Tensor, " d_model"]:
    """Return a unit vector, uniform on the sphere, in float32."""
    vector = keyed_generator("direction", seed, draw).standard_normal(d_model)
    return torch.from_numpy((vector / np.linalg.norm(vector)).astype(np.float32))


def choose_tokens(
    logits: Float[Tensor, "rows vocabulary"],
    draws: Float[Tensor, " rows"],
    rule: SamplingRule,
) -> Int[Tensor, " rows"]:
    """Return one token per row: top k, temperature, top p, then inverse CDF.

    Tokens are ordered by probability (ties by token), so a small draw means a likely token.
    """
    if rule.greedy:
        return logits.argmax(dim=-1)
    kept = min(rule.top_k or logits.shape[-1], logits.shape[-1])
    values, tokens = _order_ties(*torch.topk(logits, kept, dim=-1, sorted=True))
    return choose_among(values, tokens, draws, rule)


def choose_among(
    values: Float[Tensor, "rows kept"],
    tokens: Int[Tensor, "rows kept"],
    draws: Float[Tensor, " rows"],
    rule: SamplingRule,
) -> Int[Tensor, " rows"]:
    """Return one token per row of the logits that top k keeps: falling, equal ones by token."""
    if rule.greedy:
        return tokens[:, 0]
    weights = torch.softmax(values.double() / rule.temperature, dim=-1)
    if rule.top_p < 1.0:
        before = weights.cumsum(dim=-1) - weights
        weights = torch.where(before < rule.top_p, weights, torch.zeros_like(weights))
    cumulative = weights.cumsum(dim=-1)
    wanted = draws.to(cumulative)[:, None] * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, wanted, right=True)
    last = (weights > 0).sum(dim=-1, keepdim=True) - 1
    return tokens.gather(1, torch.minimum(place, last))[:, 0]


def _order_ties(values: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Order equal logits by token: ``topk`` promises no order among them."""
    by_token = tokens.argsort(dim=-1)
    values, tokens = values.gather(1, by_token), tokens.gather(1, by_token)
    by_value = values.argsort(dim=-1, descending=True, stable=True)
    return values.gather(1, by_value), tokens.gather(1, by_value)
