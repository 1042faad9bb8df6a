"""Distribution shift: what an intervention does to the next token, by probability and rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics.model.causal_model import OutputHead
from loopscope.numerics.model.logits import blocks

TOP = 10
LOGIT_ROWS_MAX = 64
"""Rows of whole vocabularies that are kept at a time: ranks look at all of a row, twice."""


@dataclass(frozen=True)
class TokenShift:
    """One token's place in the next-token distribution before and after; ranks start at 1."""

    token: int
    probability_before: float
    rank_before: int
    probability_after: float
    rank_after: int

    @property
    def new_arrival(self) -> bool:
        """Whether the token came into the top ten from outside."""
        return self.rank_after <= TOP < self.rank_before


@torch.no_grad()
def token_shifts(
    head: OutputHead, states: Float[Tensor, "openings cells d_model"]
) -> list[list[list[TokenShift]]]:
    """Return, for each opening and cell after its first, the tokens in the top ten of either.

    The first cell of an opening is the clean model. Tokens come by rank after, then by rank before.
    Of equal logits the lower token ranks first.
    """
    _, cells, width = states.shape
    at_once = max(1, LOGIT_ROWS_MAX // cells)
    found: list[list[list[TokenShift]]] = []
    for part in torch.split(states, at_once):
        rows = _Rows.of(head, part.reshape(-1, width))
        for first in range(0, len(rows.logits), cells):
            found.append([_shifts(rows, first, first + other) for other in range(1, cells)])
    return found


@dataclass(frozen=True)
class _Rows:
    """Logits of some rows [rows, vocabulary], the logarithm of their sum, their top ten."""

    logits: Tensor
    log_sums: Tensor
    top: Tensor

    @staticmethod
    def of(head: OutputHead, states: Float[Tensor, "rows d_model"]) -> _Rows:
        logits = torch.empty(len(states), head.vocabulary, device=states.device)
        for start, block in blocks(head, states):
            logits[:, start : start + len(block)] = block.T
        top = torch.topk(logits, min(TOP, head.vocabulary), dim=1).indices
        sums = torch.stack([torch.logsumexp(row.double(), dim=0) for row in logits])
        return _Rows(logits, sums, top)

    def probabilities(self, row: int, tokens: Int[Tensor, " tokens"]) -> list[float]:
        own = self.logits[row, tokens].double() - self.log_sums[row]
        found: list[float] = own.exp().tolist()
        return found

    def ranks(self, row: int, tokens: Int[Tensor, " tokens"]) -> list[int]:
        """Return each token's rank in a row: 1 and the tokens before it."""
        logits = self.logits[row]
        own = logits[tokens]
        others = (logits >= own.min()).nonzero()[:, 0]  # no other token can come before one
        there = logits[others]
        before = (there > own[:, None]) | ((there == own[:, None]) & (others < tokens[:, None]))
        ranks: list[int] = (1 + before.sum(dim=1)).tolist()
        return ranks


def _shifts(rows: _Rows, clean: int, other: int) -> list[TokenShift]:
    tokens = torch.unique(torch.cat([rows.top[clean], rows.top[other]]))
    found = [
        TokenShift(*numbers)
        for numbers in zip(
            tokens.tolist(),
            rows.probabilities(clean, tokens),
            rows.ranks(clean, tokens),
            rows.probabilities(other, tokens),
            rows.ranks(other, tokens),
            strict=True,
        )
    ]
    return sorted(found, key=lambda shift: (shift.rank_after, shift.rank_before))
