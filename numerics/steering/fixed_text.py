"""A fixed text under many interventions: read once below the hook, then carried on from there.

Below the hook an intervention changes nothing, so what stands there is kept, and a pass for other
arms or strengths begins at the hooked block. Effects are measured at a few positions of a text,
which its own hash chooses: the unembedding of a large vocabulary costs more than the blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.numerics.model.batching import pad
from loopscope.numerics.model.capture import HookNeverFired, NotFinite, first_not_finite
from loopscope.numerics.model.causal_model import CausalModel
from loopscope.numerics.model.hooks import HookPlace, steered
from loopscope.numerics.steering.intervention import Intervention

POSITIONS_PER_TEXT = 8


def hashed_order(texts: Sequence[str]) -> list[int]:
    """Return the places of the texts, in the order of the SHA-256 of each."""
    return sorted(range(len(texts)), key=lambda place: (_hash(texts[place]), place))


def hashed_positions(text: str, first: int, last: int) -> tuple[int, ...]:
    """Return at most eight of the positions ``first`` to ``last``, rising.

    Those whose SHA-256 of the position, a line end and the text is lowest: a function of the text.
    """
    ranked = sorted(range(first, last + 1), key=lambda position: _hash(f"{position}\n{text}"))
    return tuple(sorted(ranked[:POSITIONS_PER_TEXT]))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class FixedText:
    """A text as the unsteered model reads it, and where effects on it are measured.

    ``residual`` stands at the hook, up to the last position that is measured; ``states`` are the
    final ones at the ``positions`` (BOS is 0). ``output_parts`` is how a block returns its
    hidden states: first in a tuple of so many parts, 0 for the bare tensor. ``entering`` is what
    the hooked block reads, where the hook stands within it.
    """

    place: HookPlace
    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    residual: Float[Tensor, "1 width d_model"]
    states: Float[Tensor, "positions d_model"]
    output_parts: int
    entering: Float[Tensor, "1 width d_model"] | None = None

    @property
    def measured(self) -> Float[Tensor, "positions d_model"]:
        """The residual stream at the hook where effects are measured."""
        return self.residual[0, list(self.positions)]

    def following(self) -> list[int]:
        """Return the token after each position."""
        return [self.tokens[position + 1] for position in self.positions]


@torch.no_grad()
def read_text(
    model: CausalModel,
    place: HookPlace,
    tokens: Sequence[int],
    positions: Sequence[int],
    device: torch.device | str = "cpu",
) -> FixedText:
    """Read a text (with BOS) with the unsteered model, as far as the last of ``positions``.

    Raises HookNeverFired, and NotFinite with row 0.
    """
    seen: list[Tensor] = []
    entered: list[Tensor] = []
    parts: list[int] = []

    def keep(hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return hidden

    def keep_entered(hidden: Tensor) -> Tensor:
        entered.append(hidden)
        return hidden

    def learn(_block: Any, _inputs: Any, output: Any) -> None:
        parts.append(len(output) if isinstance(output, tuple) else 0)

    with ExitStack() as stack:
        stack.enter_context(steered(model, place, keep))
        if place.within_block:
            stack.enter_context(steered(model, HookPlace(place.block, "resid_pre"), keep_entered))
        handle = model.blocks[place.block].register_forward_hook(learn)
        stack.callback(handle.remove)
        hidden = _pass(model, tokens[: max(positions) + 1], device)
    if len(seen) != 1 or len(parts) != 1:
        raise HookNeverFired(f"the steering hook fired {len(seen)} times in 1 pass")
    if first_not_finite(hidden) is not None:
        raise NotFinite("the unsteered model returned NaN or infinity", 0)
    states = hidden[0, list(positions)]
    return FixedText(
        place, tuple(tokens), tuple(positions), seen[0], states, parts[0],
        entered[0] if entered else None,
    )  # fmt: skip


@torch.no_grad()
def carried_on(
    model: CausalModel, text: FixedText, intervention: Intervention
) -> Float[Tensor, "cells positions d_model"]:
    """Return the final states at the text's positions under each cell, BOS left unsteered.

    Only the blocks behind the hook run, and that which it stands in. Raises HookNeverFired, and
    NotFinite; its row counts the unsteered model as 0.
    """
    device = text.residual.device
    mask = torch.ones(len(intervention), text.residual.shape[1], dtype=torch.bool, device=device)
    mask[:, 0] = False
    moved = intervention.applied(text.residual, mask)
    fired: list[None] = []

    def start(_hidden: Tensor) -> Tensor:
        fired.append(None)
        return moved

    with (
        _skipped(_below(model, text.place), text.output_parts),
        _entered(model, text),
        steered(model, text.place, start),
    ):
        hidden = _pass(model, text.tokens[: text.residual.shape[1]], device)
    if len(fired) != 1:
        raise HookNeverFired(f"the steering hook fired {len(fired)} times in 1 pass")
    if len(hidden) != len(intervention):
        raise NotFinite(f"the steered model returned {len(hidden)} rows, not {len(intervention)}")
    row = first_not_finite(hidden)
    if row is not None:
        raise NotFinite("the steered model returned NaN or infinity", row + 1)
    return hidden[:, list(text.positions)]


def _pass(
    model: CausalModel, tokens: Sequence[int], device: torch.device | str
) -> Float[Tensor, "rows width d_model"]:
    batch = pad([tokens], tokens[0], "right", device)
    hidden: Tensor = model.body(
        input_ids=batch.tokens,
        attention_mask=batch.mask.long(),
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    return hidden


def _below(model: CausalModel, place: HookPlace) -> Sequence[nn.Module]:
    """Return the blocks whose output the hook makes needless."""
    return list(model.blocks)[: place.first_block_above]


@contextmanager
def _entered(model: CausalModel, text: FixedText) -> Iterator[None]:
    """Let the hooked block read what it read of the text, where it has to run again."""
    entering = text.entering
    if entering is None:
        yield
        return
    with steered(model, HookPlace(text.place.block, "resid_pre"), lambda _hidden: entering):
        yield


@contextmanager
def _skipped(blocks: Sequence[nn.Module], output_parts: int) -> Iterator[None]:
    """Let ``blocks`` hand on their hidden states untouched in every forward pass inside."""

    def hand_on(*inputs: Any, **named: Any) -> Any:
        hidden = inputs[0] if inputs else named["hidden_states"]
        return (hidden, *[None] * (output_parts - 1)) if output_parts else hidden

    with ExitStack() as stack:
        for block in blocks:
            stack.callback(_restore, block, block.__dict__.get("forward"))
            block.__dict__["forward"] = hand_on
        yield


def _restore(block: nn.Module, forward: Any) -> None:
    if forward is None:
        del block.__dict__["forward"]
    else:
        block.__dict__["forward"] = forward
