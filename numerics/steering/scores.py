"""Scores: −log p of tokens, next-token KL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics.model.capture import NotFinite, first_not_finite
from loopscope.numerics.model.causal_model import CausalModel, OutputHead
from loopscope.numerics.model.logits import blocks
from loopscope.numerics.steering.fixed_text import FixedText, carried_on, read_text
from loopscope.numerics.steering.intervention import Intervention

STATES_PER_CHUNK = 256
"""Positions whose logits are computed together, a block of the vocabulary at a time: wide enough
for the rate of a large product, and a block of 1,024 tokens is 1 MiB."""


def token_nll(
    head: OutputHead,
    states: Float[Tensor, "states d_model"],
    targets: Int[Tensor, " targets"],
    state_of: Int[Tensor, " targets"] | None = None,
) -> Float[Tensor, " targets"]:
    """Return −log p(target | state) in nats, float64.

    Target i comes after state i, or after state ``state_of[i]``: states that several targets share
    are unembedded once.
    """
    if state_of is None:
        state_of = torch.arange(len(targets), device=targets.device)
    found = torch.zeros(len(targets), dtype=torch.float64, device=states.device)
    for start in range(0, len(states), STATES_PER_CHUNK):
        mine = ((state_of >= start) & (state_of < start + STATES_PER_CHUNK)).nonzero()[:, 0]
        chunk = states[start : start + STATES_PER_CHUNK]
        found[mine] = _nll_of_chunk(head, chunk, targets[mine], state_of[mine] - start)
    return found


def _nll_of_chunk(head: OutputHead, states: Tensor, targets: Tensor, state_of: Tensor) -> Tensor:
    order = targets.argsort()
    tokens, column = targets[order], state_of[order]
    sums = _LogSums.of(states)
    own: list[Tensor] = []
    for start, logits in blocks(head, states):
        bounds = torch.tensor([start, start + len(logits)], device=tokens.device)
        first, last = torch.searchsorted(tokens, bounds).tolist()
        own.append(logits[tokens[first:last] - start, column[first:last]].double())
        sums.add(logits)
    nll = torch.empty(len(targets), dtype=torch.float64, device=states.device)
    nll[order] = sums.total[column] - torch.cat(own)
    return nll


@dataclass
class _LogSums:
    """log Σ exp of the logits of each column, block by block; ``add`` overwrites its block."""

    peak: Float[Tensor, " columns"]
    weight: Float[Tensor, " columns"]

    @staticmethod
    def of(states: Float[Tensor, "columns d_model"]) -> _LogSums:
        peak = torch.full((len(states),), -torch.inf, dtype=torch.float64, device=states.device)
        return _LogSums(peak, torch.zeros_like(peak))

    def add(self, logits: Float[Tensor, "tokens columns"]) -> None:
        higher = torch.maximum(self.peak, logits.amax(dim=0).double())
        shares = logits.sub_(higher.to(logits.dtype)).exp_().sum(dim=0).double()
        self.weight = self.weight * torch.exp(self.peak - higher) + shares
        self.peak = higher

    @property
    def total(self) -> Float[Tensor, " columns"]:
        return self.peak + torch.log(self.weight)


@torch.no_grad()
def text_kl(
    model: CausalModel, texts: Sequence[FixedText], intervention: Intervention
) -> list[Float[Tensor, "cells positions"]]:
    """Return KL(clean ‖ steered) of the next token in nats, at each text's positions, float64.

    The positions of all texts are unembedded together. Rounding below zero is cut to 0. Raises
    HookNeverFired and NotFinite; its row counts the clean model as 0.
    """
    return _checked_kl(model, texts, [carried_on(model, text, intervention) for text in texts])


@torch.no_grad()
def text_loss_rise(
    model: CausalModel, texts: Sequence[FixedText], intervention: Intervention
) -> list[Float[Tensor, "cells positions"]]:
    """Return the rise of −log p of the token after each of the texts' positions, in nats.

    A fluency cost: what the steered model finds harder about ordinary text than the clean one.
    Single positions may be below 0. Raises HookNeverFired and NotFinite; its row counts the clean
    model as 0.
    """
    states = _beside_clean(texts, [carried_on(model, text, intervention) for text in texts])
    cells, positions, width = states.shape
    following = [token for text in texts for token in text.following()]
    targets = torch.tensor(following, device=states.device).repeat(cells)
    loss = token_nll(model.head, states.reshape(-1, width), targets).view(cells, positions)
    row = first_not_finite(loss)
    if row is not None:
        raise NotFinite("the logits are NaN or infinite", row)
    return _by_text(texts, loss[1:] - loss[:1])


@torch.no_grad()
def text_kl_of_prefixes(
    model: CausalModel, texts: Sequence[FixedText], prefixed: Sequence[Sequence[FixedText]]
) -> list[Float[Tensor, "prefixes positions"]]:
    """Return KL(clean ‖ prefixed) of the next token at each text's positions, in nats.

    ``prefixed`` [texts, prefixes] are the texts behind something else, measured at the same tokens
    (``read_prefixed``). Raises NotFinite.
    """
    moved = [torch.stack([other.states for other in of_text]) for of_text in prefixed]
    return _checked_kl(model, texts, moved)


def read_prefixed(model: CausalModel, text: FixedText, prefixed: Sequence[int]) -> FixedText:
    """Return ``text`` as the unsteered model reads it at the end of the tokens ``prefixed``.

    Both end in the same tokens, from the first measured one on.
    """
    more = len(prefixed) - len(text.tokens)
    positions = [position + more for position in text.positions]
    return read_text(model, text.place, prefixed, positions, text.residual.device)


def _beside_clean(
    texts: Sequence[FixedText], moved: Sequence[Float[Tensor, "cells positions d_model"]]
) -> Float[Tensor, "cells_and_clean positions d_model"]:
    """Return the clean states, and below them those of each cell, the texts side by side."""
    pairs = zip(texts, moved, strict=True)
    return torch.cat([torch.cat([text.states[None], cells]) for text, cells in pairs], dim=1)


def _by_text(texts: Sequence[FixedText], values: Tensor) -> list[Tensor]:
    return list(torch.split(values, [len(text.positions) for text in texts], dim=1))


def _checked_kl(
    model: CausalModel,
    texts: Sequence[FixedText],
    moved: Sequence[Float[Tensor, "cells positions d_model"]],
) -> list[Tensor]:
    states = _beside_clean(texts, moved)
    positions_per_chunk = max(1, STATES_PER_CHUNK // len(states))
    parts = [kl_of_states(model.head, c) for c in torch.split(states, positions_per_chunk, 1)]
    divergence = torch.cat(parts, dim=1)
    row = first_not_finite(divergence)
    if row is not None:
        raise NotFinite("the logits are NaN or infinite", row + 1)
    return _by_text(texts, divergence)


def kl_of_states(
    head: OutputHead, states: Float[Tensor, "cells positions d_model"]
) -> Float[Tensor, "other_cells positions"]:
    """Return KL(first cell ‖ each other cell) in nats, streamed over the vocabulary.

    KL(p ‖ q) = Σ p (z_p − z_q) − log Σ exp z_p + log Σ exp z_q. The running sums are relative to
    the largest clean logit so far and are rescaled when it rises.
    """
    cells, positions, width = states.shape
    flat = states.reshape(cells * positions, width)
    sums = _LogSums.of(flat)
    cross = torch.zeros(cells - 1, positions, dtype=torch.float64, device=states.device)
    for _, logits in blocks(head, flat):
        z = logits.view(-1, cells, positions)
        before = sums.peak[:positions]
        gap = z[:, :1] - z[:, 1:]
        sums.add(logits)
        share = z[:, :1]  # exp of the clean logits, relative to their largest so far
        rescale = torch.exp(before - sums.peak[:positions])
        cross = cross * rescale + gap.mul_(share).sum(dim=0).double()
    total = sums.total.view(cells, positions)
    weight = sums.weight[:positions]
    return (cross / weight - total[:1] + total[1:]).clamp(min=0.0)
