"""Passes of the steered model over openings: what stands below the hook is read once.

Below the hook all arms, strengths and samples of an opening are the same. So each different opening
is read there once, and its rows begin at the hooked block.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.numerics.model.batching import TokenBatch, pad
from loopscope.numerics.model.capture import HookNeverFired, NotFinite, first_not_finite
from loopscope.numerics.model.causal_model import CausalModel
from loopscope.numerics.model.hooks import HookPlace, steered
from loopscope.numerics.model.skipping import parts_of_output, skipped
from loopscope.numerics.steering.intervention import Intervention
from loopscope.numerics.steering.kept import Keeper
from loopscope.numerics.steering.reach import Reach


class Steering:
    """An intervention at the masked positions of each forward pass.

    ``acted`` are those of the last pass in which the hook fired, [rows, width].
    """

    def __init__(self, intervention: Intervention) -> None:
        self.intervention = intervention
        self.firings = 0
        self.acted: Bool[Tensor, "rows width"] = torch.zeros(len(intervention), 0, dtype=torch.bool)
        self._mask: Tensor | None = None

    def set_mask(self, mask: Bool[Tensor, "rows width"]) -> None:
        """Set where the next forward pass is steered: real tokens, never BOS."""
        self._mask = mask

    def __call__(self, hidden: Float[Tensor, "rows width d_model"]) -> Tensor:
        """Return the steered residual stream; a single row is repeated for all."""
        self.firings += 1
        if self._mask is None or self._mask.shape != (len(self.intervention), hidden.shape[1]):
            raise NotFinite(f"no steering mask fits a residual of shape {tuple(hidden.shape)}")
        self.acted = self._mask
        return self.intervention.applied(hidden, self._mask)


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


@dataclass(frozen=True)
class OpeningsRead:
    """Openings as the steered model has read them.

    ``last`` are the final states after each; cache, mask and position ids are those of the
    openings, None for a cache that was not asked for.
    """

    last: Float[Tensor, "rows d_model"]
    cache: Any
    mask: Bool[Tensor, "rows width"]
    positions: Int[Tensor, "rows width"]

    def of_rows(self, which: Int[Tensor, " rows"]) -> OpeningsRead:
        """Return the same for rows that each have one of these openings, by its number."""
        if len(which) == len(self.last):
            return self
        if self.cache is not None:
            self.cache.batch_select_indices(which)
        return OpeningsRead(self.last[which], self.cache, self.mask[which], self.positions[which])


@dataclass(frozen=True)
class _Below:
    """The different openings at the hooked block: what it reads, and the cache of the blocks below.

    ``which`` is the place of each row's opening among them.
    """

    entering: Float[Tensor, "openings width d_model"]
    cache: Any
    which: Int[Tensor, " rows"]
    output_parts: list[int]


@torch.no_grad()
def read_openings(
    model: CausalModel,
    place: HookPlace,
    openings: Sequence[Sequence[int]],
    steering: Steering,
    pad_token: int,
    *,
    use_cache: bool,
    reach: Reach | None = None,
    keeper: Keeper | None = None,
) -> OpeningsRead:
    """Read each row's opening, steered where ``reach`` says, by default at all tokens but BOS.

    ``keeper`` watches the pass over all rows. Raises HookNeverFired and NotFinite.
    """
    device = steering.intervention.vectors.device
    batch = pad(openings, pad_token, "left", device)
    below = None
    if keeper is None or keeper.first_block >= place.block:  # it sees each block that it watches
        below = _read_below(model, place, openings, pad_token, device)
    steering.set_mask((reach or Reach.everywhere(openings)).mask(batch))
    with ExitStack() as stack:
        if below is not None:
            entering = below.entering[below.which]
            blocks = list(model.blocks)[: place.block]
            stack.enter_context(skipped(blocks, below.output_parts))
            before = HookPlace(place.block, "resid_pre")
            stack.enter_context(steered(model, before, lambda _hidden: entering))
        if keeper is not None:
            stack.enter_context(keeper.watching())
        stack.enter_context(steered(model, place, steering))
        output = _body(model, batch, use_cache=use_cache)
    last = checked_last(output.last_hidden_state, steering, 1)
    cache: Any = output.past_key_values if use_cache else None
    if below is not None and use_cache:
        for layer in range(place.block):
            cache.layers[layer] = below.cache.layers[layer]
            cache.layers[layer].batch_select_indices(below.which)
    return OpeningsRead(last, cache, batch.mask, batch.position_ids)


def _read_below(
    model: CausalModel,
    place: HookPlace,
    openings: Sequence[Sequence[int]],
    pad_token: int,
    device: torch.device,
) -> _Below | None:
    """Read the different openings up to the hooked block.

    None where nothing is shared, or where a block's cache does not stand under its own number.
    """
    rows = [tuple(opening) for opening in openings]
    different = {tokens: number for number, tokens in enumerate(dict.fromkeys(rows))}
    if place.block == 0 or len(different) == len(rows):
        return None
    seen: list[Tensor] = []
    parts: list[int] = []

    def keep(hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return hidden

    blocks = list(model.blocks)
    with ExitStack() as stack:
        stack.enter_context(parts_of_output(blocks[0], parts))
        stack.enter_context(steered(model, HookPlace(place.block, "resid_pre"), keep))
        stack.enter_context(skipped(blocks[place.block :], parts))
        output = _body(model, pad(list(different), pad_token, "left", device), use_cache=True)
    if len(seen) != 1:
        raise HookNeverFired(f"the hooked block was entered {len(seen)} times in 1 pass")
    layers = getattr(output.past_key_values, "layers", ())
    if len(layers) not in (place.block, len(blocks)):
        return None
    which = torch.tensor([different[tokens] for tokens in rows], device=device)
    return _Below(seen[0], output.past_key_values, which, parts)


def _body(model: CausalModel, batch: TokenBatch, *, use_cache: bool) -> Any:
    return model.body(
        input_ids=batch.tokens,
        attention_mask=batch.mask.long(),
        position_ids=batch.position_ids,
        use_cache=use_cache,
    )


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
    batch = pad([tokens], tokens[0], "right", intervention.vectors.device)
    steering = Steering(intervention)
    steering.set_mask(batch.without_bos.expand(len(intervention), -1))
    with steered(model, place, steering):
        hidden: Tensor = _body(model, batch, use_cache=False).last_hidden_state
    checked_last(hidden, steering, 1)
    if hidden.shape[0] != len(intervention):
        raise NotFinite(
            f"the steered model returned {hidden.shape[0]} rows, not {len(intervention)}"
        )
    row = first_not_finite(hidden)
    if row is not None:
        raise NotFinite("the steered model returned NaN or infinity", row)
    return hidden
