"""Steering: change the residual stream of every row, and decode with a cache.

Rows of one batch may differ in prompt, arm, strength and sample; none sees another. With the
cache on, the hook sees the whole opening once and then one token per step, so "skip position 0"
would skip every generated token: the mask of each pass selects where to act.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.numerics.model.batching import pad
from loopscope.numerics.model.capture import HookNeverFired, NotFinite, first_not_finite
from loopscope.numerics.model.causal_model import CausalModel
from loopscope.numerics.model.hooks import HookPlace, steered
from loopscope.numerics.statistics.sampling import SamplingRule, choose_tokens
from loopscope.numerics.steering.intervention import Intervention


class Steering:
    """An intervention at the masked positions of each forward pass."""

    def __init__(self, intervention: Intervention) -> None:
        self.intervention = intervention
        self.firings = 0
        self._mask: Tensor | None = None

    def set_mask(self, mask: Bool[Tensor, "rows width"]) -> None:
        """Set where the next forward pass is steered: real tokens without BOS."""
        self._mask = mask

    def __call__(self, hidden: Float[Tensor, "rows width d_model"]) -> Tensor:
        """Return the steered residual stream; a single row is repeated for all."""
        self.firings += 1
        if self._mask is None or self._mask.shape != (len(self.intervention), hidden.shape[1]):
            raise NotFinite(f"no steering mask fits a residual of shape {tuple(hidden.shape)}")
        return self.intervention.applied(hidden, self._mask)


@dataclass
class _Rows:
    """What each row has generated so far; EOS ends a row and is not kept."""

    tokens: list[list[int]]
    finished: Bool[Tensor, " rows"]

    def add(self, chosen: Int[Tensor, " rows"], eos_tokens: frozenset[int]) -> None:
        for row, token in enumerate(chosen.tolist()):
            if self.finished[row]:
                continue
            if token in eos_tokens:
                self.finished[row] = True
            else:
                self.tokens[row].append(token)


@torch.no_grad()
def generate(
    model: CausalModel,
    place: HookPlace,
    openings: Sequence[Sequence[int]],
    intervention: Intervention,
    draws: Float[Tensor, "rows steps"],
    rule: SamplingRule,
    *,
    eos_tokens: frozenset[int],
    pad_token: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> list[list[int]]:
    """Return the tokens that each row generates after its opening, without EOS.

    ``openings`` start with BOS, which is never steered; the number of steps is the width of
    ``draws``; ``on_step(done)`` is called after each. A zero vector that clears no latent is the
    unsteered model.
    Raises HookNeverFired and NotFinite.
    """
    device = intervention.vectors.device
    batch = pad(openings, pad_token, "left", device)
    steering = Steering(intervention)
    steering.set_mask(batch.without_bos)
    rows = _Rows([[] for _ in openings], torch.zeros(len(openings), dtype=torch.bool))
    inputs, mask, positions, cache = batch.tokens, batch.mask, batch.position_ids, None
    one_more = torch.ones(len(openings), 1, dtype=torch.bool, device=device)
    with steered(model, place, steering):
        for step in range(draws.shape[1]):
            output = model.body(
                input_ids=inputs,
                attention_mask=mask.long(),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            last = checked_last(output.last_hidden_state, steering, step + 1)
            logits = model.head(last)
            row = first_not_finite(logits.amax(dim=1, keepdim=True))  # NaN is the largest of all
            if row is not None:
                raise NotFinite("the logits are NaN or infinite", row)
            chosen = choose_tokens(logits, draws[:, step], rule)
            rows.add(chosen, eos_tokens)
            on_step(step + 1)
            if bool(rows.finished.all()):
                break
            cache = output.past_key_values
            inputs = torch.where(rows.finished.to(device), pad_token, chosen)[:, None]
            mask = torch.cat([mask, one_more], dim=1)
            positions = positions[:, -1:] + 1
            steering.set_mask(one_more)
    return rows.tokens


def checked_last(
    hidden: Float[Tensor, "rows width d_model"], steering: Steering, passes: int
) -> Float[Tensor, "rows d_model"]:
    """Return the last position's states. Raises HookNeverFired and NotFinite."""
    if steering.firings != passes:
        raise HookNeverFired(f"the steering hook fired {steering.firings} times in {passes} passes")
    last = hidden[:, -1]
    row = first_not_finite(last)
    if row is not None:
        raise NotFinite("the steered model returned NaN or infinity", row)
    return last


@torch.no_grad()
def steered_states(
    model: CausalModel,
    place: HookPlace,
    tokens: Sequence[int],
    intervention: Intervention,
) -> Float[Tensor, "cells tokens d_model"]:
    """Return the final states of one text under each cell, BOS left unsteered but included.

    Below the hook all cells are the same, so those blocks run once on a single row that the
    hook repeats; masks and positions of a single unpadded row broadcast over the cells.
    """
    device = intervention.vectors.device
    batch = pad([tokens], tokens[0], "right", device)
    steering = Steering(intervention)
    steering.set_mask(batch.without_bos.expand(len(intervention), -1))
    with steered(model, place, steering):
        hidden = model.body(
            input_ids=batch.tokens,
            attention_mask=batch.mask.long(),
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
    checked_last(hidden, steering, 1)
    if hidden.shape[0] != len(intervention):
        raise NotFinite(
            f"the steered model returned {hidden.shape[0]} rows, not {len(intervention)}"
        )
    row = first_not_finite(hidden)
    if row is not None:
        raise NotFinite("the steered model returned NaN or infinity", row)
    states: Tensor = hidden
    return states
