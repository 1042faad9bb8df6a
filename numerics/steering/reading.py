"""The unsteered model's reading of generated text: fluency and residual streams in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics.model.batching import pad
from loopscope.numerics.model.capture import HookNeverFired, NotFinite
from loopscope.numerics.model.causal_model import CausalModel
from loopscope.numerics.model.hooks import HookPlace, steered, width_at
from loopscope.numerics.steering.scores import token_nll

TEXTS_PER_PASS = 128
"""Continuations of one opening that share a forward pass."""


@dataclass(frozen=True)
class Reading:
    """What the unsteered model makes of some continuations of one opening.

    ``nll`` is the mean −log p per generated token in nats, float64 [texts]; exp of it is the
    perplexity. ``states`` holds the residual stream at each place, [tokens, d_model], the
    generated tokens of all texts one text after the other; ``lengths`` counts each text's tokens.
    """

    nll: Float[Tensor, " texts"]
    states: dict[HookPlace, Float[Tensor, "tokens d_model"]]
    lengths: list[int]


@dataclass
class _Recorder:
    """Keeps what the last forward pass had at one place and changes nothing."""

    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, hidden: Tensor) -> Tensor:
        self.seen = [*self.seen, hidden]
        return hidden


@torch.no_grad()
def read_continuations(
    model: CausalModel,
    opening: Sequence[int],
    texts: Sequence[Sequence[int]],
    places: Sequence[HookPlace],
    pad_token: int,
    device: torch.device | str = "cpu",
) -> Reading:
    """Read each text (at least one token) after ``opening`` (with BOS).

    The opening runs once and its cache is repeated. Raises HookNeverFired and NotFinite, and
    ``ValueError`` for a text without tokens.
    """
    if any(not len(text) for text in texts):
        raise ValueError("a text without tokens cannot be read")
    nll = [torch.zeros(0, dtype=torch.float64)]
    states = {place: [torch.zeros(0, width_at(model, place), device=device)] for place in places}
    for start in range(0, len(texts), TEXTS_PER_PASS):
        part = texts[start : start + TEXTS_PER_PASS]
        means, found = _read(model, opening, part, places, pad_token, device)
        nll.append(means.cpu())
        for place in places:
            states[place].append(found[place])
    return Reading(
        torch.cat(nll),
        {place: torch.cat(parts) for place, parts in states.items()},
        [len(text) for text in texts],
    )


def _read(
    model: CausalModel,
    opening: Sequence[int],
    texts: Sequence[Sequence[int]],
    places: Sequence[HookPlace],
    pad_token: int,
    device: torch.device | str,
) -> tuple[Tensor, dict[HookPlace, Tensor]]:
    prefix = pad([opening], pad_token, "right", device)
    before = model.body(
        input_ids=prefix.tokens,
        attention_mask=prefix.mask.long(),
        position_ids=prefix.position_ids,
        use_cache=True,
    )
    batch = pad(texts, pad_token, "right", device)
    cache = before.past_key_values
    cache.batch_repeat_interleave(len(texts))
    recorders = {place: _Recorder() for place in places}
    with ExitStack() as hooks:
        for place, recorder in recorders.items():
            hooks.enter_context(steered(model, place, recorder))
        after = model.body(
            input_ids=batch.tokens,
            attention_mask=torch.cat([prefix.mask.expand(len(texts), -1), batch.mask], 1).long(),
            position_ids=batch.position_ids + len(opening),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
    first = before.last_hidden_state[:, -1:].expand(len(texts), -1, -1)
    predicting = torch.cat([first, after[:, :-1]], dim=1)
    nll = torch.zeros(batch.tokens.shape, dtype=torch.float64, device=predicting.device)
    nll[batch.mask] = token_nll(model.head, predicting[batch.mask], batch.tokens[batch.mask])
    means = nll.sum(dim=1) / batch.mask.sum(dim=1)
    if not bool(torch.isfinite(means).all()):
        raise NotFinite("the unsteered model gave NaN or infinity on a generated text")
    return means, {place: _seen_once(r)[batch.mask] for place, r in recorders.items()}


@torch.no_grad()
def residual_of(
    model: CausalModel,
    place: HookPlace,
    tokens: Sequence[int],
    device: torch.device | str = "cpu",
) -> Float[Tensor, "tokens d_model"]:
    """Return the residual stream of one sequence alone, BOS included, in float32."""
    return streams_of(model, [place], tokens, device)[place]


@torch.no_grad()
def streams_of(
    model: CausalModel,
    places: Sequence[HookPlace],
    tokens: Sequence[int],
    device: torch.device | str = "cpu",
) -> dict[HookPlace, Float[Tensor, "tokens width"]]:
    """Return several streams of one sequence alone from one pass, BOS included, in float32."""
    recorders = {place: _Recorder() for place in places}
    with ExitStack() as hooks:
        for place, recorder in recorders.items():
            hooks.enter_context(steered(model, place, recorder))
        model.body(input_ids=torch.tensor([list(tokens)], device=device), use_cache=False)
    return {place: _seen_once(recorder)[0].float() for place, recorder in recorders.items()}


def _seen_once(recorder: _Recorder) -> Tensor:
    if len(recorder.seen) != 1:
        raise HookNeverFired(f"a reading hook fired {len(recorder.seen)} times in one pass")
    return recorder.seen[0]


def text_means(
    values: Float[Tensor, "tokens width"], lengths: Sequence[int]
) -> Float[Tensor, "texts width"]:
    """Return the mean over each text's tokens, float64; ``lengths`` are all above 0."""
    parts = torch.split(values.double(), list(lengths))
    return torch.stack([part.mean(dim=0) for part in parts])
