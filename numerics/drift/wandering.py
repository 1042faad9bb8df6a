"""Samples at a temperature, and how far the distribution they come from is from the anchored one.

The anchored distribution p is the model's own, at temperature 1, under its anchor. Tokens are drawn
from q ∝ p^(1/T). How far q is from p at each step needs no sampling: KL(q ‖ p), in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics.model.capture import NotFinite, first_not_finite
from loopscope.numerics.model.causal_model import CausalModel, OutputHead
from loopscope.numerics.model.hooks import HookPlace, steered
from loopscope.numerics.steering.intervention import Intervention
from loopscope.numerics.steering.passes import Steering, checked_last, read_openings
from loopscope.numerics.steering.reach import Reach

ROWS_PER_CHUNK = 16
"""Rows whose whole distributions are held at a time."""


@dataclass(frozen=True)
class Wandered:
    """What each row drew (without EOS), and means over its steps.

    ``wander`` is KL(q ‖ p), ``surprisal`` −log p of the token that was drawn, both in nats;
    ``concept`` is the probability under p that the next token is one of the concept's.
    """

    tokens: list[list[int]]
    wander: list[float]
    surprisal: list[float]
    concept: list[float]


@dataclass(frozen=True)
class _Step:
    """One draw of each row."""

    token: Int[Tensor, " rows"]
    wander: Float[Tensor, " rows"]
    surprisal: Float[Tensor, " rows"]
    concept: Float[Tensor, " rows"]


@torch.no_grad()
def wander(
    model: CausalModel,
    place: HookPlace,
    openings: Sequence[Sequence[int]],
    intervention: Intervention,
    reach: Reach,
    temperatures: Sequence[float],
    draws: Float[Tensor, "rows steps"],
    concept: Sequence[int],
    *,
    eos_tokens: frozenset[int],
    pad_token: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> Wandered:
    """Go on from each row's opening at its temperature for as many steps as ``draws`` has.

    A row ends at EOS, whose draw counts as a step. Raises HookNeverFired and NotFinite.
    """
    device = intervention.vectors.device
    heat = torch.tensor(list(temperatures), device=device)
    steering = Steering(intervention)
    read = read_openings(model, place, openings, steering, pad_token, use_cache=True, reach=reach)
    last, cache, mask, positions = read.last, read.cache, read.mask, read.positions[:, -1:]
    steering = Steering(intervention)
    steering.set_mask(reach.next_tokens().to(device))
    rows = _Rows.empty(len(openings))
    one_more = torch.ones(len(openings), 1, dtype=torch.bool, device=device)
    with steered(model, place, steering):
        for number in range(draws.shape[1]):
            step = drawn(model.head, last, heat, draws[:, number], concept)
            rows.add(step, eos_tokens)
            on_step(number + 1)
            if all(rows.finished) or number + 1 == draws.shape[1]:
                break
            mask = torch.cat([mask, one_more], dim=1)
            positions = positions + 1
            ended = torch.tensor(rows.finished, device=device)
            output = model.body(
                input_ids=torch.where(ended, pad_token, step.token)[:, None],
                attention_mask=mask.long(),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            last = checked_last(output.last_hidden_state, steering, number + 1)
    return rows.means()


@dataclass
class _Rows:
    """What each row drew so far, and the sums over its steps."""

    tokens: list[list[int]]
    finished: list[bool]
    steps: list[list[tuple[float, float, float]]]

    @staticmethod
    def empty(count: int) -> _Rows:
        return _Rows([[] for _ in range(count)], [False] * count, [[] for _ in range(count)])

    def add(self, step: _Step, eos_tokens: frozenset[int]) -> None:
        numbers = zip(
            step.wander.tolist(), step.surprisal.tolist(), step.concept.tolist(), strict=True
        )
        for row, (token, found) in enumerate(zip(step.token.tolist(), numbers, strict=True)):
            if self.finished[row]:
                continue
            self.steps[row].append(found)
            if token in eos_tokens:
                self.finished[row] = True
            else:
                self.tokens[row].append(token)

    def means(self) -> Wandered:
        of_rows = [
            [sum(column) / len(found) for column in zip(*found, strict=True)]
            for found in self.steps
        ]
        wander_, surprisal, concept = (list(column) for column in zip(*of_rows, strict=True))
        return Wandered(self.tokens, wander_, surprisal, concept)


def drawn(
    head: OutputHead,
    states: Float[Tensor, "rows d_model"],
    heat: Float[Tensor, " rows"],
    draws: Float[Tensor, " rows"],
    concept: Sequence[int],
) -> _Step:
    """Draw a token of each row by inverse CDF over the whole vocabulary, in the order of tokens.

    Sums are float64, single terms float32. Raises NotFinite with the row.
    """
    parts = [_drawn(head, *rows, concept, start) for start, rows in _chunks(states, heat, draws)]
    return _Step(
        torch.cat([part.token for part in parts]),
        torch.cat([part.wander for part in parts]),
        torch.cat([part.surprisal for part in parts]),
        torch.cat([part.concept for part in parts]),
    )


def _chunks(
    states: Tensor, heat: Tensor, draws: Tensor
) -> list[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
    pieces = zip(*(torch.split(one, ROWS_PER_CHUNK) for one in (states, heat, draws)), strict=True)
    return [(number * ROWS_PER_CHUNK, piece) for number, piece in enumerate(pieces)]


def _drawn(
    head: OutputHead,
    states: Tensor,
    heat: Tensor,
    draws: Tensor,
    concept: Sequence[int],
    first: int,
) -> _Step:
    logits = head(states)
    row = first_not_finite(logits.amax(dim=1, keepdim=True))
    if row is not None:
        raise NotFinite("the logits are NaN or infinite", first + row)
    log_p = torch.log_softmax(logits, dim=1)
    log_q = torch.log_softmax(log_p / heat[:, None].to(log_p), dim=1)
    q = log_q.exp()
    far = (q * (log_q - log_p)).sum(dim=1, dtype=torch.float64).clamp(min=0.0)
    cumulative = q.cumsum(dim=1, dtype=torch.float64)
    wanted = draws.to(cumulative)[:, None] * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, wanted, right=True).clamp(max=q.shape[1] - 1)
    surprisal = -log_p.gather(1, place)[:, 0].double()
    mass = log_p[:, list(concept)].exp().sum(dim=1, dtype=torch.float64)
    return _Step(place[:, 0], far, surprisal, mass)
