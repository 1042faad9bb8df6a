"""Token-budget batches of similar length, padding, attention mask and position ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Row = TypeVar("Row")


@dataclass(frozen=True)
class TokenBatch:
    """Padded token sequences, each with exactly one BOS as its first real token.

    ``mask`` is true on real tokens, BOS among them. ``position_ids`` count real tokens from 0
    and are 0 on padding, so that a padded row sees the positions of a single run.
    """

    tokens: Int[Tensor, "rows width"]
    mask: Bool[Tensor, "rows width"]
    position_ids: Int[Tensor, "rows width"]

    @property
    def without_bos(self) -> Bool[Tensor, "rows width"]:
        """True on real tokens except BOS: the tokens that statistics and steering see."""
        return self.mask & (self.position_ids > 0)


def plan_batches(
    lengths: Sequence[int], tokens_per_batch_max: int, rows_per_batch_max: int | None = None
) -> list[list[int]]:
    """Return index lists that hold each sequence once, shortest first.

    A function of the lengths alone (ties by index): rows × longest ≤ ``tokens_per_batch_max``,
    except that a sequence longer than the budget makes a batch of its own.
    """
    if tokens_per_batch_max < 1 or (rows_per_batch_max is not None and rows_per_batch_max < 1):
        raise ValueError("a batch must be allowed to hold at least one token and one row")
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        rows = len(batches[-1]) if batches else 0
        fits = (rows + 1) * lengths[index] <= tokens_per_batch_max
        if rows and fits and (rows_per_batch_max is None or rows < rows_per_batch_max):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def in_parts(rows: Sequence[Row], parts: int) -> list[Sequence[Row]]:
    """Return ``rows`` in order, cut into at most ``parts`` pieces of about equal length."""
    size = max(1, -(-len(rows) // parts))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def pad(
    sequences: Sequence[Sequence[int]],
    pad_token: int,
    side: Literal["left", "right"],
    device: torch.device | str = "cpu",
) -> TokenBatch:
    """Pad sequences to one width.

    The mask comes from lengths, never from token values, because many tokenizers pad with EOS or
    BOS. Raises ValueError on an empty sequence.
    """
    if not sequences or not all(sequences):
        raise ValueError("cannot pad an empty batch or an empty sequence")
    width = max(len(sequence) for sequence in sequences)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    columns = torch.arange(width)[None, :]
    padding = (width - lengths)[:, None]
    mask = columns >= padding if side == "left" else columns < width - padding
    tokens = torch.full((len(sequences), width), pad_token, dtype=torch.long)
    tokens[mask] = torch.tensor([t for sequence in sequences for t in sequence], dtype=torch.long)
    position_ids = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
    return TokenBatch(tokens.to(device), mask.to(device), position_ids.to(device))
