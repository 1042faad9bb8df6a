"""Texts that begin alike, read once: an anchor, more and more filler, and an ending each time.

What stands before an ending is in the cache. A text is read by itself, so that nothing depends on
what shares a batch; rows that differ in steering alone share all blocks below the hook.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loopscope.numerics.model.capture import NotFinite
from loopscope.numerics.model.causal_model import CausalModel
from loopscope.numerics.model.hooks import HookPlace, steered
from loopscope.numerics.steering.intervention import Intervention
from loopscope.numerics.steering.passes import Steering, checked_last

TOKENS_PER_PASS = 512
"""Tokens of a filler that are read at a time: attention over all of them at once needs memory."""


@dataclass(frozen=True)
class Piece:
    """Tokens that are read one after another, and which rows are steered on all of them."""

    tokens: tuple[int, ...]
    steered: tuple[bool, ...]


@dataclass
class Reader:
    """A text as several rows have read it so far; the rows differ in what steering does.

    ``intervention`` has a row for each. The first token read, BOS, is never steered.
    """

    model: CausalModel
    place: HookPlace
    intervention: Intervention
    cache: Any = None
    length: int = 0

    @torch.no_grad()
    def read(self, piece: Piece) -> Float[Tensor, "rows d_model"]:
        """Read a piece (at least one token); return the final states after its last token.

        Raises HookNeverFired and NotFinite with the row.
        """
        last: Tensor | None = None
        for start in range(0, len(piece.tokens), TOKENS_PER_PASS):
            last = self._pass(piece.tokens[start : start + TOKENS_PER_PASS], piece.steered)
        if last is None:
            raise ValueError("a piece holds at least one token")
        return last

    def _pass(self, tokens: Sequence[int], acts: Sequence[bool]) -> Float[Tensor, "rows d_model"]:
        device = self.intervention.vectors.device
        count, before = len(tokens), self.length
        steering = Steering(self.intervention)
        steering.set_mask(self._mask(count, acts))
        with steered(self.model, self.place, steering):
            output = self.model.body(
                input_ids=torch.tensor([list(tokens)], device=device),
                attention_mask=torch.ones(1, before + count, dtype=torch.long, device=device),
                position_ids=torch.arange(before, before + count, device=device)[None],
                past_key_values=self.cache,
                use_cache=True,
            )
        self.cache, self.length = output.past_key_values, before + count
        last = checked_last(output.last_hidden_state, steering, 1)
        if len(last) != len(self.intervention):
            raise NotFinite(f"the model returned {len(last)} rows, not {len(self.intervention)}")
        return last

    def _mask(self, count: int, acts: Sequence[bool]) -> Bool[Tensor, "rows tokens"]:
        mask = torch.tensor(list(acts), dtype=torch.bool)[:, None].repeat(1, count)
        if self.length == 0:
            mask[:, 0] = False
        return mask.to(self.intervention.vectors.device)

    def ended(self, pieces: Sequence[Piece]) -> Float[Tensor, "rows d_model"]:
        """Return the final states after more pieces; what was read so far stays as it is."""
        aside = Reader(
            self.model, self.place, self.intervention, copy.deepcopy(self.cache), self.length
        )
        states = torch.empty(0)
        for piece in pieces:
            states = aside.read(piece)
        return states


@dataclass(frozen=True)
class Beginning:
    """The tokens of an anchor with BOS, what steering does, and on which rows it acts where."""

    tokens: tuple[int, ...]
    intervention: Intervention
    anchor_steered: tuple[bool, ...]
    filler_steered: tuple[bool, ...]


def read_over_filler(
    model: CausalModel,
    place: HookPlace,
    beginning: Beginning,
    fillers: Sequence[Sequence[int]],
    visit: Callable[[int, Reader], None],
) -> None:
    """Read an anchor and ever longer fillers behind it; call ``visit(number, reader)`` after each.

    Each filler begins with the one before it. Raises HookNeverFired and NotFinite with the row.
    """
    reader = Reader(model, place, beginning.intervention)
    reader.read(Piece(beginning.tokens, beginning.anchor_steered))
    read = 0
    for number, filler in enumerate(fillers):
        if len(filler) > read:
            reader.read(Piece(tuple(filler[read:]), beginning.filler_steered))
            read = len(filler)
        visit(number, reader)
