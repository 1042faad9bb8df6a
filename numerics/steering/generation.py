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
from loopscope.numerics.model.capture import NotFinite, first_not_finite
from loopscope.numerics.model.causal_model import CausalModel
from loopscope.numerics.model.hooks import HookPlace, steered
from loopscope.numerics.model.logits import KEPT_MAX, LargestLogits
from loopscope.numerics.statistics.sampling import SamplingRule, choose_among, choose_tokens
from loopscope.numerics.steering.intervention import Intervention
from loopscope.numerics.steering.passes import Steering, checked_last, read_openings

STATES_PER_CHUNK = 256
"""States whose next tokens are drawn together, where all are known beforehand."""


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
    largest = LargestLogits.of(model.head) if _keeps_few(rule) else LargestLogits(model.head)
    steering = Steering(intervention)
    rows = _Rows([[] for _ in openings], torch.zeros(len(openings), dtype=torch.bool))
    read = read_openings(model, place, openings, steering, pad_token, use_cache=True)
    last, cache, mask, positions = read.last, read.cache, read.mask, read.positions
    one_more = torch.ones(len(openings), 1, dtype=torch.bool, device=device)
    steering.set_mask(one_more)
    with steered(model, place, steering):
        for step in range(draws.shape[1]):
            chosen = _drawn(largest, last, draws[:, step], rule)
            rows.add(chosen, eos_tokens)
            on_step(step + 1)
            if bool(rows.finished.all()) or step + 1 == draws.shape[1]:
                break
            mask = torch.cat([mask, one_more], dim=1)
            positions = positions + 1
            output = model.body(
                input_ids=torch.where(rows.finished.to(device), pad_token, chosen)[:, None],
                attention_mask=mask.long(),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            last = checked_last(output.last_hidden_state, steering, step + 2)
    return rows.tokens


def _keeps_few(rule: SamplingRule) -> bool:
    return rule.greedy or 0 < rule.top_k <= KEPT_MAX


def _drawn(
    largest: LargestLogits,
    states: Float[Tensor, "rows d_model"],
    draws: Float[Tensor, " rows"],
    rule: SamplingRule,
) -> Int[Tensor, " rows"]:
    """Return the token that each row draws. Raises NotFinite."""
    if _keeps_few(rule):
        return choose_among(*largest(states, 1 if rule.greedy else rule.top_k), draws, rule)
    logits = largest.head(states)
    row = first_not_finite(logits.amax(dim=1, keepdim=True))  # NaN is the largest of all
    if row is not None:
        raise NotFinite("the logits are NaN or infinite", row)
    return choose_tokens(logits, draws, rule)


@torch.no_grad()
def drawn_again(
    model: CausalModel,
    place: HookPlace,
    openings: Sequence[Sequence[int]],
    generated: Sequence[Sequence[int]],
    intervention: Intervention,
    draws: Float[Tensor, "rows steps"],
    rule: SamplingRule,
    *,
    pad_token: int,
) -> list[list[int]]:
    """Return what each row draws after its opening and each beginning of what it has generated.

    One pass without a cache over texts that are known, in float32 throughout. By induction a row
    would generate the same tokens again if and only if it draws them here. A row that ended before
    the last step draws once more: the token that ended it. Raises HookNeverFired and NotFinite.
    """
    device, steps = intervention.vectors.device, draws.shape[1]
    texts = [[*o, *g[: steps - 1]] for o, g in zip(openings, generated, strict=True)]
    batch = pad(texts, pad_token, "right", device)
    steering = Steering(intervention)
    steering.set_mask(batch.without_bos)
    with steered(model, place, steering):
        hidden = model.body(
            input_ids=batch.tokens,
            attention_mask=batch.mask.long(),
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
    checked_last(hidden, steering, 1)
    places = [
        (row, len(opening) - 1 + step, step)
        for row, (opening, text) in enumerate(zip(openings, texts, strict=True))
        for step in range(len(text) - len(opening) + 1)
    ]
    found: list[list[int]] = [[] for _ in openings]
    exact = LargestLogits(model.head)
    for start in range(0, len(places), STATES_PER_CHUNK):
        row, position, step = torch.tensor(places[start : start + STATES_PER_CHUNK]).T.to(device)
        try:
            chosen = _drawn(exact, hidden[row, position], draws[row, step], rule)
        except NotFinite as error:
            raise NotFinite(
                str(error), None if error.row is None else int(row[error.row])
            ) from None
        for number, token in zip(row.tolist(), chosen.tolist(), strict=True):
            found[number].append(token)
    return found
