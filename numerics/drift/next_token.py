"""The next token as a whole distribution: its divergence from another, and the concept's share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics.model.capture import NotFinite, first_not_finite
from loopscope.numerics.model.causal_model import OutputHead

STATES_PER_CHUNK = 32
"""States whose whole distributions are held at a time."""


@torch.no_grad()
def log_probabilities(
    head: OutputHead, states: Float[Tensor, "rows d_model"]
) -> Float[Tensor, "rows vocabulary"]:
    """Return the natural logarithms of the next token's probabilities, float64.

    Raises NotFinite with the row.
    """
    logits = head(states).double()
    row = first_not_finite(logits.amax(dim=1, keepdim=True))  # NaN is the largest of all
    if row is not None:
        raise NotFinite("the logits are NaN or infinite", row)
    return torch.log_softmax(logits, dim=1)


@torch.no_grad()
def beside(
    head: OutputHead, states: Float[Tensor, "rows d_model"], concept: Sequence[int]
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Return KL(first ‖ row) of the next token in nats and the concept's probability, by row.

    Both float64; rounding of a divergence below zero is cut to 0. Raises NotFinite with the row.
    """
    first = log_probabilities(head, states[:1])
    kl, mass = [], []
    for start in range(0, len(states), STATES_PER_CHUNK):
        try:
            logs = log_probabilities(head, states[start : start + STATES_PER_CHUNK])
        except NotFinite as error:
            raise NotFinite(str(error), start + (error.row or 0)) from None
        kl.append((first.exp() * (first - logs)).sum(dim=1).clamp(min=0.0))
        mass.append(logs[:, list(concept)].exp().sum(dim=1))
    return torch.cat(kl), torch.cat(mass)
