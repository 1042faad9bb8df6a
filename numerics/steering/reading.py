"""The unsteered model's reading of generated text: fluency and residual streams in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics.model.batching import TokenBatch, pad
from loopscope.numerics.model.capture import HookNeverFired, NotFinite
from loopscope.numerics.model.causal_model import CausalModel
from loopscope.numerics.model.hooks import HookPlace, steered, width_at
from loopscope.numerics.model.skipping import parts_of_output, skipped
from loopscope.numerics.steering.scores import token_nll

TEXTS_PER_PASS = 256
"""Texts that share a forward pass."""


@dataclass(frozen=True)
class Continuation:
    """A text (at least one token) and the number of the opening that it goes on from."""

    opening: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """What the unsteered model makes of some continuations.

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
    openings: Sequence[Sequence[int]],
    texts: Sequence[Continuation],
    places: Sequence[HookPlace],
    pad_token: int,
    device: torch.device | str = "cpu",
) -> Reading:
    """Read each text after its opening (with BOS), the openings of a pass once each.

    What stands before a token of several texts of an opening is unembedded once. Raises
    HookNeverFired and NotFinite, and ``ValueError`` for a text without tokens.
    """
    if any(not len(text.tokens) for text in texts):
        raise ValueError("a text without tokens cannot be read")
    nll = [torch.zeros(0, dtype=torch.float64)]
    states = {place: [torch.zeros(0, width_at(model, place), device=device)] for place in places}
    for start in range(0, len(texts), TEXTS_PER_PASS):
        part = texts[start : start + TEXTS_PER_PASS]
        means, found = _read(model, openings, part, places, pad_token, device)
        nll.append(means.cpu())
        for place in places:
            states[place].append(found[place])
    return Reading(
        torch.cat(nll),
        {place: torch.cat(parts) for place, parts in states.items()},
        [len(text.tokens) for text in texts],
    )


def _read(
    model: CausalModel,
    openings: Sequence[Sequence[int]],
    texts: Sequence[Continuation],
    places: Sequence[HookPlace],
    pad_token: int,
    device: torch.device | str,
) -> tuple[Tensor, dict[HookPlace, Tensor]]:
    numbers = {n: place for place, n in enumerate(dict.fromkeys(text.opening for text in texts))}
    which = torch.tensor([numbers[text.opening] for text in texts], device=device)
    prefix = pad([openings[number] for number in numbers], pad_token, "left", device)
    before = model.body(
        input_ids=prefix.tokens,
        attention_mask=prefix.mask.long(),
        position_ids=prefix.position_ids,
        use_cache=True,
    )
    batch = pad([text.tokens for text in texts], pad_token, "right", device)
    cache = before.past_key_values
    cache.batch_select_indices(which)
    recorders = {place: _Recorder() for place in places}
    with ExitStack() as hooks:
        for place, recorder in recorders.items():
            hooks.enter_context(steered(model, place, recorder))
        after = model.body(
            input_ids=batch.tokens,
            attention_mask=torch.cat([prefix.mask[which], batch.mask], 1).long(),
            position_ids=batch.position_ids + prefix.mask.sum(dim=1)[which, None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
    predicting = torch.cat([before.last_hidden_state[:, -1:][which], after[:, :-1]], dim=1)
    first, state_of = _shared_beginnings(texts)
    nll = torch.zeros(batch.tokens.shape, dtype=torch.float64, device=predicting.device)
    nll[batch.mask] = token_nll(
        model.head,
        predicting[batch.mask][first.to(device)],
        batch.tokens[batch.mask],
        state_of.to(device),
    )
    means = nll.sum(dim=1) / batch.mask.sum(dim=1)
    if not bool(torch.isfinite(means).all()):
        raise NotFinite("the unsteered model gave NaN or infinity on a generated text")
    return means, {place: _seen_once(r)[batch.mask] for place, r in recorders.items()}


def _shared_beginnings(
    texts: Sequence[Continuation],
) -> tuple[Int[Tensor, " states"], Int[Tensor, " tokens"]]:
    """Return which tokens come first after their beginning, and for each token which of these.

    Tokens are counted text after text. A beginning is the opening with the tokens before one.
    """
    numbers: dict[tuple[int, int], int] = {}  # (beginning before, token): its own number
    first: list[int] = []
    state_of: list[int] = []
    states: dict[int, int] = {}
    for text in texts:
        beginning = numbers.setdefault((-1, text.opening), len(numbers))
        for token in text.tokens:
            if beginning not in states:
                states[beginning] = len(first)
                first.append(len(state_of))
            state_of.append(states[beginning])
            beginning = numbers.setdefault((beginning, token), len(numbers))
    return torch.tensor(first, dtype=torch.long), torch.tensor(state_of, dtype=torch.long)


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


@torch.no_grad()
def residuals_of(
    model: CausalModel, place: HookPlace, batch: TokenBatch
) -> Float[Tensor, "rows width d_model"]:
    """Return the residual stream of a batch in float32; the blocks behind the place do not run."""
    recorder, parts = _Recorder(), list[int]()
    blocks = list(model.blocks)
    with ExitStack() as stack:
        stack.enter_context(steered(model, place, recorder))
        stack.enter_context(parts_of_output(blocks[place.block], parts))
        stack.enter_context(skipped(blocks[place.block + 1 :], parts))
        model.body(
            input_ids=batch.tokens,
            attention_mask=batch.mask.long(),
            position_ids=batch.position_ids,
            use_cache=False,
        )
    return _seen_once(recorder).float()


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
