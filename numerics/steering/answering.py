"""Answers of a steered model: the next token of fixed text, and the likeliest of a few options."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.numerics.model.causal_model import CausalModel, OutputHead
from loopscope.numerics.steering.fixed_text import FixedText, carried_on
from loopscope.numerics.steering.intervention import Intervention


def next_token_hits(
    model: CausalModel, text: FixedText, intervention: Intervention
) -> Bool[Tensor, "cells positions"]:
    """Return whether each cell's likeliest token is the one that follows, at the text's positions.

    Of equally likely tokens the lowest counts. Raises HookNeverFired and NotFinite.
    """
    states = carried_on(model, text, intervention)
    found = likeliest(model.head, states.flatten(0, 1)).view(states.shape[:2])
    return found == torch.tensor(text.following(), device=found.device)


def text_log_probability(
    model: CausalModel, text: FixedText, intervention: Intervention
) -> Float[Tensor, " cells"]:
    """Return the log-probability of the tokens that follow the text's positions, summed, in nats.

    Raises HookNeverFired and NotFinite.
    """
    states = carried_on(model, text, intervention)
    cells = len(states)
    following = torch.tensor(text.following() * cells, device=states.device)
    found = log_probability(model.head, states.flatten(0, 1), following)
    return found.view(cells, -1).sum(dim=1)


def likeliest(head: OutputHead, hidden: Float[Tensor, "rows d_model"]) -> Int[Tensor, " rows"]:
    """Return the likeliest token of each row, the lowest of equal ones."""
    best = torch.full((len(hidden),), -torch.inf, device=hidden.device)
    token = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
    for start, part in head.chunks(hidden):
        top, place = part.max(dim=1)
        higher = top > best
        best = torch.where(higher, top, best)
        token = torch.where(higher, place + start, token)
    return token


def log_probability(
    head: OutputHead, hidden: Float[Tensor, "rows d_model"], tokens: Int[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """Return the log-probability of one token of each row, float64: logit less log of the sum."""
    total = torch.full((len(hidden),), -torch.inf, dtype=torch.float64, device=hidden.device)
    own = torch.zeros_like(total)
    for start, part in head.chunks(hidden):
        exact = part.double()
        total = torch.logaddexp(total, exact.logsumexp(dim=1))
        inside = (tokens >= start) & (tokens < start + part.shape[1])
        place = (tokens - start).clamp(0, part.shape[1] - 1)[:, None]
        own = torch.where(inside, exact.gather(1, place)[:, 0], own)
    return own - total


def preferred(values: Sequence[float]) -> int:
    """Return the place of the largest value, the first of equal ones."""
    return max(range(len(values)), key=lambda place: (values[place], -place))
