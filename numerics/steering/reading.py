"""The unsteered model's reading of generated text: fluency and residual streams in one pass.

A text that was decoded after the same opening is read from its hook on (``read_kept``), any other
one as a whole (``read_whole``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics.model.batching import TokenBatch, pad
from loopscope.numerics.model.capture import HookNeverFired, NotFinite
from loopscope.numerics.model.causal_model import CausalModel
from loopscope.numerics.model.hooks import HookPlace, steered, width_at
from loopscope.numerics.model.skipping import parts_of_output, skipped
from loopscope.numerics.steering.kept import Kept, Recorder
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


@dataclass(frozen=True)
class TextsRead:
    """What the unsteered model has for some texts, one after the other.

    ``predicting`` are the final states before each generated token, ``states`` the stream at each
    place after it.
    """

    texts: Sequence[Continuation]
    predicting: Float[Tensor, "tokens d_model"]
    states: dict[HookPlace, Float[Tensor, "tokens d_model"]]


def read_continuations(
    model: CausalModel,
    openings: Sequence[Sequence[int]],
    texts: Sequence[Continuation],
    places: Sequence[HookPlace],
    pad_token: int,
    device: torch.device | str = "cpu",
) -> Reading:
    """Read each text after its opening (with BOS), the openings of a pass once each.

    Raises HookNeverFired and NotFinite, and ``ValueError`` for a text without tokens.
    """
    parts = [texts[n : n + TEXTS_PER_PASS] for n in range(0, len(texts), TEXTS_PER_PASS)]
    read = [read_whole(model, openings, part, places, pad_token, device) for part in parts]
    return reading_of(model, read, places)


@torch.no_grad()
def reading_of(
    model: CausalModel, read: Sequence[TextsRead], places: Sequence[HookPlace]
) -> Reading:
    """Return what all texts read together come to.

    What stands before a token of several texts of an opening is unembedded once. Raises NotFinite.
    """
    texts = [text for part in read for text in part.texts]
    device = model.head.weight.device
    if not texts:
        none = {place: torch.zeros(0, width_at(model, place), device=device) for place in places}
        return Reading(torch.zeros(0, dtype=torch.float64), none, [])
    lengths = [len(text.tokens) for text in texts]
    first, state_of = _shared_beginnings(texts)
    predicting = torch.cat([part.predicting for part in read])
    tokens = torch.tensor([t for text in texts for t in text.tokens], device=device)
    nll = token_nll(model.head, predicting[first.to(device)], tokens, state_of.to(device))
    means = torch.stack([part.mean() for part in torch.split(nll, lengths)])
    if not bool(torch.isfinite(means).all()):
        raise NotFinite("the unsteered model gave NaN or infinity on a generated text")
    states = {place: torch.cat([part.states[place] for part in read]) for place in places}
    return Reading(means.cpu(), states, lengths)


@torch.no_grad()
def read_whole(
    model: CausalModel,
    openings: Sequence[Sequence[int]],
    texts: Sequence[Continuation],
    places: Sequence[HookPlace],
    pad_token: int,
    device: torch.device | str,
) -> TextsRead:
    """Read texts after their openings in one pass over the whole model, each opening once.

    Raises HookNeverFired, and ``ValueError`` for a text without tokens.
    """
    _check_tokens(texts)
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
    recorders = {place: Recorder() for place in places}
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
    states = {place: _seen_once(r)[batch.mask] for place, r in recorders.items()}
    return TextsRead(texts, predicting[batch.mask], states)


@torch.no_grad()
def read_kept(
    model: CausalModel,
    kept: Kept,
    rows: Sequence[int],
    texts: Sequence[Continuation],
    places: Sequence[HookPlace],
) -> TextsRead:
    """Read texts that were decoded, each by its row: only the blocks behind the hook run.

    The places are among those that were kept or stand behind the hook. Raises HookNeverFired, and
    ``ValueError`` for a text without tokens.
    """
    _check_tokens(texts)
    device = kept.mask.device
    chosen = torch.tensor(rows, device=device)
    opening = int(kept.mask[chosen, : kept.opening_width].sum(dim=1).max())
    first = kept.opening_width - opening  # before it all of these rows are padding
    last = kept.opening_width + max(len(text.tokens) for text in texts)
    mask = kept.mask[chosen, first:last]
    entering = kept.streams[kept.start][chosen, first:last]
    recorders = {p: Recorder() for p in places if p not in kept.streams}
    if not all(kept.seen_behind(place) for place in recorders):
        raise HookNeverFired("a place below the hook was not kept while decoding")
    below = list(model.blocks)[: kept.start.first_block_above]
    with ExitStack() as stack:
        stack.enter_context(skipped(below, [kept.output_parts]))
        stack.enter_context(steered(model, kept.start, lambda _hidden: entering))
        for place, recorder in recorders.items():
            stack.enter_context(steered(model, place, recorder))
        hidden = model.body(
            input_ids=torch.zeros(mask.shape, dtype=torch.long, device=device),
            attention_mask=mask.long(),
            position_ids=kept.positions[chosen, first:last],
            use_cache=False,
        ).last_hidden_state
    own = mask[:, opening:]
    states = {
        place: (
            _seen_once(recorders[place])[:, opening:][own]
            if place in recorders
            else kept.streams[place][chosen, kept.opening_width : last][own]
        )
        for place in places
    }
    return TextsRead(texts, hidden[:, opening - 1 : -1][own], states)


def _check_tokens(texts: Sequence[Continuation]) -> None:
    if any(not len(text.tokens) for text in texts):
        raise ValueError("a text without tokens cannot be read")


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
    recorders = {place: Recorder() for place in places}
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
    return streams_of_batch(model, [place], batch)[place]


@torch.no_grad()
def streams_of_batch(
    model: CausalModel, places: Sequence[HookPlace], batch: TokenBatch
) -> dict[HookPlace, Float[Tensor, "rows width d"]]:
    """Return several streams of a batch from one pass, in float32; padding holds anything.

    The blocks behind the last place do not run. Raises HookNeverFired.
    """
    recorders, parts = {place: Recorder() for place in places}, list[int]()
    blocks, last = list(model.blocks), max(place.block for place in places)
    with ExitStack() as stack:
        for place, recorder in recorders.items():
            stack.enter_context(steered(model, place, recorder))
        stack.enter_context(parts_of_output(blocks[last], parts))
        stack.enter_context(skipped(blocks[last + 1 :], parts))
        model.body(
            input_ids=batch.tokens,
            attention_mask=batch.mask.long(),
            position_ids=batch.position_ids,
            use_cache=False,
        )
    return {place: _seen_once(recorder).float() for place, recorder in recorders.items()}


def _seen_once(recorder: Recorder) -> Tensor:
    if len(recorder.seen) != 1:
        raise HookNeverFired(f"a reading hook fired {len(recorder.seen)} times in one pass")
    return recorder.seen[0]


def text_means(
    values: Float[Tensor, "tokens width"], lengths: Sequence[int]
) -> Float[Tensor, "texts width"]:
    """Return the mean over each text's tokens, float64; ``lengths`` are all above 0."""
    parts = torch.split(values.double(), list(lengths))
    return torch.stack([part.mean(dim=0) for part in parts])
