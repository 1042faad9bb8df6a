"""Steering: change the residual stream of every row, and decode with a cache.

Rows of one batch may differ in prompt, arm, strength and sample; none sees another. With the
cache on, the hook sees the whole opening once and then one token per step, so "skip position 0"
would skip every generated token: the mask of each pass selects where to act. The first generated
token is drawn after the last one of the opening, which is steered as part of the opening.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
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
from loopscope.numerics.steering.kept import Keeper, Kept
from loopscope.numerics.steering.passes import Steering, checked_last, read_openings
from loopscope.numerics.steering.reach import Reach

STATES_PER_CHUNK = 256
"""States whose next tokens are drawn together, where all are known beforehand."""


@dataclass(frozen=True)
class Generated:
    """What each row generated, without EOS, and how far steering reached.

    ``after_steered`` counts the tokens of each row that were drawn after one on which the hook
    acted, ``opening_steered`` the tokens of its opening on which it did, as seen by the hook.
    ``after_opening`` are the final states from which the first tokens were drawn; ``kept`` is what
    was seen below the hook, where that was asked for.
    """

    tokens: list[list[int]]
    after_steered: list[int]
    opening_steered: list[int]
    after_opening: Float[Tensor, "rows d_model"]
    kept: Kept | None = None


@dataclass
class _Rows:
    """What each row has generated so far; EOS ends a row and is not kept."""

    tokens: list[list[int]]
    after_steered: list[int]
    finished: Bool[Tensor, " rows"]

    @staticmethod
    def empty(rows: int) -> _Rows:
        finished = torch.zeros(rows, dtype=torch.bool)
        return _Rows([[] for _ in range(rows)], [0] * rows, finished)

    def add(
        self,
        chosen: Int[Tensor, " rows"],
        acted: Bool[Tensor, " rows"],
        eos_tokens: frozenset[int],
    ) -> None:
        """Take in a token of each row, and whether the one that it was drawn after was steered."""
        for row, (token, after) in enumerate(zip(chosen.tolist(), acted.tolist(), strict=True)):
            if self.finished[row]:
                continue
            if token in eos_tokens:
                self.finished[row] = True
            else:
                self.tokens[row].append(token)
                self.after_steered[row] += after


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
    reach: Reach | None = None,
    largest: LargestLogits | None = None,
    keep: Sequence[HookPlace] | None = None,
    on_step: Callable[[int], None] = lambda step: None,
) -> Generated:
    """Return the tokens that each row generates after its opening, without EOS.

    ``openings`` start with BOS, which is never steered; all other tokens are, or those of
    ``reach``. The number of steps is the width of ``draws``; ``on_step(done)`` is called after
    each. A zero vector that clears no latent is the unsteered model. ``largest`` is the head as
    ``prepared_head`` gives it. With ``keep`` the rows can be read again without steering, at these
    places too. Raises HookNeverFired and NotFinite.
    """
    reach = reach or Reach.everywhere(openings)
    device = intervention.vectors.device
    largest = largest or prepared_head(model, rule)
    first, which = _beginning_alike(openings, intervention, reach, device)
    steering, opening_steering = Steering(intervention), Steering(intervention[first])
    rows = _Rows.empty(len(openings))
    keeper = None if keep is None else Keeper(model, place, keep)
    read = read_openings(
        model, place, [openings[row] for row in first], opening_steering, pad_token,
        use_cache=True, reach=reach.of(first), keeper=keeper,
    )  # fmt: skip
    read = read.of_rows(which)
    if keeper is not None:
        keeper.repeat(which)
    last, cache, mask, positions = read.last, read.cache, read.mask, read.positions[:, -1:]
    acted = opening_steering.acted[which.to(opening_steering.acted.device)]
    opening_steered, after_steered = acted.sum(dim=1).tolist(), acted[:, -1]
    one_more = torch.ones(len(openings), 1, dtype=torch.bool, device=device)
    steering.set_mask(reach.next_tokens().to(device))
    with ExitStack() as stack:
        if keeper is not None:
            stack.enter_context(keeper.watching())
        stack.enter_context(steered(model, place, steering))
        for step in range(draws.shape[1]):
            chosen = _drawn(largest, last, draws[:, step], rule)
            rows.add(chosen, after_steered, eos_tokens)
            on_step(step + 1)
            is_last = step + 1 == draws.shape[1]
            if bool(rows.finished.all()) or (is_last and keeper is None):
                break
            if is_last and keeper is not None:  # no token is drawn after it, but it is read
                stack.enter_context(keeper.ending())
            mask = torch.cat([mask, one_more], dim=1)
            positions = positions + 1
            output = model.body(
                input_ids=torch.where(rows.finished.to(device), pad_token, chosen)[:, None],
                attention_mask=mask.long(),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            if not is_last:
                cache = output.past_key_values
                last = checked_last(output.last_hidden_state, steering, step + 1)
                after_steered = steering.acted[:, -1]
    kept = None
    if keeper is not None:
        kept = keeper.kept(read.mask, read.positions, [len(tokens) for tokens in rows.tokens])
    return Generated(rows.tokens, rows.after_steered, opening_steered, read.last, kept)


def _beginning_alike(
    openings: Sequence[Sequence[int]],
    intervention: Intervention,
    reach: Reach,
    device: torch.device,
) -> tuple[list[int], Int[Tensor, " rows"]]:
    """Return the rows whose openings no earlier one has, steered alike, and each row's among them.

    The samples of an opening under one arm and strength differ only in what they draw.
    """
    found: dict[tuple[object, ...], int] = {}
    first: list[int] = []
    which: list[int] = []
    steered_by = intervention.keys()
    for row, opening in enumerate(openings):
        key = (tuple(opening), steered_by[row], reach.places[row], reach.generated[row])
        if key not in found:
            found[key] = len(first)
            first.append(row)
        which.append(found[key])
    return first, torch.tensor(which, device=device)


def prepared_head(model: CausalModel, rule: SamplingRule) -> LargestLogits:
    """Return the head as tokens are chosen with it by this rule; many batches may share it."""
    return LargestLogits.of(model.head) if _keeps_few(rule) else LargestLogits(model.head)


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
    reach: Reach | None = None,
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
    steering.set_mask((reach or Reach.everywhere(openings)).mask(batch))
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
