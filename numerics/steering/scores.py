"""Scores: −log p of tokens, next-token KL."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics.model.capture import NotFinite, first_not_finite
from loopscope.numerics.model.causal_model import CausalModel, OutputHead
from loopscope.numerics.steering.fixed_text import FixedText, carried_on, read_text
from loopscope.numerics.steering.intervention import Intervention

STATES_PER_CHUNK = 1_024
"""Positions whose logits are computed together, a chunk of the vocabulary at a time."""


def token_nll(
    head: OutputHead, states: Float[Tensor, "states d_model"], targets: Int[Tensor, " states"]
) -> Float[Tensor, " states"]:
    """Return −log p(target | state) in nats, float64."""
    parts = []
    for block, wanted in zip(
        torch.split(states, STATES_PER_CHUNK), torch.split(targets, STATES_PER_CHUNK), strict=True
    ):
        total = torch.full((len(block),), -torch.inf, dtype=torch.float64, device=states.device)
        own = torch.zeros_like(total)
        for start, logits in head.chunks(block):
            total = torch.logaddexp(total, torch.logsumexp(logits, dim=-1).double())
            local = wanted - start
            inside = (local >= 0) & (local < logits.shape[1])
            found = logits.gather(1, local.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
            own = torch.where(inside, found.double(), own)
        parts.append(total - own)
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


@torch.no_grad()
def text_kl(
    model: CausalModel, text: FixedText, intervention: Intervention
) -> Float[Tensor, "cells positions"]:
    """Return KL(clean ‖ steered) of the next token in nats, at the text's positions, float64.

    Rounding below zero is cut to 0. Raises HookNeverFired and NotFinite; its row counts the clean
    model as 0.
    """
    return _checked_kl(model, text, carried_on(model, text, intervention))


@torch.no_grad()
def text_loss_rise(
    model: CausalModel, text: FixedText, intervention: Intervention
) -> Float[Tensor, "cells positions"]:
    """Return the rise of −log p of the token after each of the text's positions, in nats.

    A fluency cost: what the steered model finds harder about ordinary text than the clean one.
    Single positions may be below 0. Raises HookNeverFired and NotFinite; its row counts the clean
    model as 0.
    """
    states = torch.cat([text.states[None], carried_on(model, text, intervention)])
    cells, positions, width = states.shape
    following = torch.tensor(text.following(), device=states.device).repeat(cells)
    loss = token_nll(model.head, states.reshape(-1, width), following).view(cells, positions)
    row = first_not_finite(loss)
    if row is not None:
        raise NotFinite("the logits are NaN or infinite", row)
    return loss[1:] - loss[:1]


@torch.no_grad()
def text_kl_of_prefix(
    model: CausalModel, text: FixedText, prefixed: FixedText
) -> Float[Tensor, " positions"]:
    """Return KL(clean ‖ prefixed) of the next token at the text's positions, in nats.

    ``prefixed`` is the text with something between BOS and its first token, measured at the same
    tokens (``read_prefixed``). Raises NotFinite.
    """
    return _checked_kl(model, text, prefixed.states[None])[0]


def read_prefixed(model: CausalModel, text: FixedText, prefix: Sequence[int]) -> FixedText:
    """Return ``text`` as the unsteered model reads it after ``prefix``, which follows BOS."""
    bos, *tokens = text.tokens
    positions = [position + len(prefix) for position in text.positions]
    return read_text(model, text.place, [bos, *prefix, *tokens], positions, text.residual.device)


def _checked_kl(
    model: CausalModel, text: FixedText, moved: Float[Tensor, "cells positions d_model"]
) -> Float[Tensor, "cells positions"]:
    states = torch.cat([text.states[None], moved])
    positions_per_chunk = max(1, STATES_PER_CHUNK // len(states))
    parts = [kl_of_states(model.head, c) for c in torch.split(states, positions_per_chunk, 1)]
    divergence = torch.cat(parts, dim=1)
    row = first_not_finite(divergence)
    if row is not None:
        raise NotFinite("the logits are NaN or infinite", row + 1)
    return divergence


def kl_of_states(
    head: OutputHead, states: Float[Tensor, "cells positions d_model"]
) -> Float[Tensor, "other_cells positions"]:
    """Return KL(first cell ‖ each other cell) in nats, streamed over the vocabulary.

    KL(p ‖ q) = Σ p (z_p − z_q) − log Σ exp z_p + log Σ exp z_q. The running sums are relative to
    the largest clean logit so far and are rescaled when it rises.
    """
    cells, positions, width = states.shape
    flat = states.reshape(cells * positions, width)
    peak = flat.new_full((positions,), -torch.inf, dtype=torch.float64)
    weight = torch.zeros_like(peak)
    cross = peak.new_zeros(cells - 1, positions)
    total = peak.new_full((cells, positions), -torch.inf)
    for _, logits in head.chunks(flat):
        z = logits.view(cells, positions, -1)
        total = torch.logaddexp(total, torch.logsumexp(z, dim=-1).double())
        higher = torch.maximum(peak, z[0].amax(dim=-1).double())
        share = torch.exp(z[0] - higher[:, None].float())
        rescale = torch.exp(peak - higher)
        weight = weight * rescale + share.sum(dim=-1).double()
        gap = torch.einsum("pv,cpv->cp", share, z[:1] - z[1:]).double()
        cross = cross * rescale + gap
        peak = higher
    return (cross / weight - total[:1] + total[1:]).clamp(min=0.0)
