"""Distribution shift: what an intervention does to the next token, by probability and rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics.model.causal_model import OutputHead

TOP = 10


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
    head: OutputHead, states: Float[Tensor, "cells d_model"]
) -> list[list[TokenShift]]:
    """Return, for each cell after the first, the tokens in its top ten or in that of the first.

    The first cell is the clean model. Tokens come by rank after, then by rank before. Of equal
    logits the lower token ranks first.
    """
    logits = head(states).double()
    before, *others = torch.log_softmax(logits, dim=-1)
    found = []
    for after in others:
        tokens = torch.unique(torch.cat([_top(before), _top(after)]))
        rows = [
            TokenShift(
                int(token),
                float(before[token].exp()),
                _rank(before, token),
                float(after[token].exp()),
                _rank(after, token),
            )
            for token in tokens
        ]
        found.append(sorted(rows, key=lambda shift: (shift.rank_after, shift.rank_before)))
    return found


def _top(scores: Float[Tensor, " vocabulary"]) -> Int[Tensor, " top"]:
    return torch.topk(scores, min(TOP, len(scores))).indices


def _rank(scores: Float[Tensor, " vocabulary"], token: Tensor) -> int:
    own = scores[token]
    ties_before = int((scores[: int(token)] == own).sum())
    return 1 + int((scores > own).sum()) + ties_before
