"""Scores: −log p of tokens, next-token KL."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics.batching import pad
from loopscope.numerics.capture import NotFinite, first_not_finite
from loopscope.numerics.causal_model import CausalModel, HookPlace, OutputHead
from loopscope.numerics.intervention import Intervention
from loopscope.numerics.steering import steered_states

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
def next_token_kl(
    model: CausalModel,
    place: HookPlace,
    tokens: Sequence[int],
    intervention: Intervention,
) -> Float[Tensor, "cells positions"]:
    """Return KL(clean ‖ steered) of the next token in nats, at each position but BOS, float64.

    The clean model is one more cell, which does nothing. Rounding below zero is cut to 0. Raises
    NotFinite; its row counts the clean model as 0.
    """
    states = steered_states(model, place, tokens, intervention.after_clean)[:, 1:]
    positions_per_chunk = max(1, STATES_PER_CHUNK // len(states))
    parts = [kl_of_states(model.head, c) for c in torch.split(states, positions_per_chunk, 1)]
    divergence = torch.cat(parts, dim=1)
    row = first_not_finite(divergence)
    if row is not None:
        raise NotFinite("the logits are NaN or infinite", row + 1)
    return divergence


@torch.no_grad()
def loss_rise(
    model: CausalModel,
    place: HookPlace,
    tokens: Sequence[int],
    intervention: Intervention,
) -> Float[Tensor, "cells positions"]:
    """Return the rise of −log p of each next token of the text under each cell, in nats.

    A fluency cost: what the steered model finds harder about ordinary text than the clean one.
    The last token predicts nothing; single positions may be below 0. Raises NotFinite; its row
    counts the clean model as 0.
    """
    states = steered_states(model, place, tokens, intervention.after_clean)[:, 1:-1]
    cells, positions, width = states.shape
    following = torch.tensor(tokens[2:], device=states.device).repeat(cells)
    loss = token_nll(model.head, states.reshape(-1, width), following).view(cells, positions)
    row = first_not_finite(loss)
    if row is not None:
        raise NotFinite("the logits are NaN or infinite", row)
    return loss[1:] - loss[:1]


@torch.no_grad()
def prefixed_kl(
    model: CausalModel,
    tokens: Sequence[int],
    prefix: Sequence[int],
    device: torch.device | str = "cpu",
) -> Float[Tensor, " positions"]:
    """Return KL(clean ‖ prefixed) of the next token at each position of ``tokens`` but BOS.

    The prefix stands between BOS and the text; the text's own positions are compared, in nats.
    """
    states = []
    for inserted in ((), tuple(prefix)):
        batch = pad([[tokens[0], *inserted, *tokens[1:]]], tokens[0], "right", device)
        hidden = model.body(
            input_ids=batch.tokens,
            attention_mask=batch.mask.long(),
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
        states.append(hidden[0, 1 + len(inserted) :])
    return kl_of_states(model.head, torch.stack(states))[0]


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
