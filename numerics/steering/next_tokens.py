"""Next tokens after a text with a vector added at some of its places, in one plain pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics.model.causal_model import CausalModel
from loopscope.numerics.model.hooks import HookPlace, steered


@torch.no_grad()
def next_logits(
    model: CausalModel,
    place: HookPlace,
    tokens: Sequence[int],
    vector: Float[Tensor, " width"],
    places: Sequence[int],
) -> Float[Tensor, " vocabulary"]:
    """Return the float32 logits after ``tokens``, with ``vector`` added at ``places``.

    Neither padded, cached nor split at the hook, as a program of a few lines would do it. BOS may
    be among the places: that program may not know better.
    """
    device = vector.device
    mask = torch.zeros(1, len(tokens), 1, device=device)
    mask[0, list(places)] = 1.0
    inputs = torch.tensor([list(tokens)], device=device)
    with steered(model, place, lambda hidden: hidden + vector.to(hidden) * mask.to(hidden)):
        output = model.body(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            position_ids=torch.arange(len(tokens), device=device)[None],
            use_cache=False,
        )
    return model.head(output.last_hidden_state[:, -1])[0]
