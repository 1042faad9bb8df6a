"""Latents of one dictionary by the cosine of their decoder rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics.latents.mapping import inverse_norms

ROWS_PER_BLOCK = 4_096


def nearest_rows(
    decoder: Float[Tensor, "latents d_out"],
    chosen: Sequence[int],
    k: int,
    on_block: Callable[[], None] = lambda: None,
) -> tuple[Int[Tensor, "chosen k"], Float[Tensor, "chosen k"]]:
    """Return the ``k`` other latents (all if there are fewer) nearest to each, and their cosines.

    Falling by cosine; a row of norm zero has cosine 0 to everything. ``on_block`` is called after
    each block of rows, so that mapped weights can be given back.
    """
    numbers = torch.tensor(list(chosen), dtype=torch.long, device=decoder.device)
    unit = unit_rows(decoder, chosen)
    k = min(k, len(decoder) - 1)
    values = unit.new_empty((len(numbers), 0))
    columns = numbers.new_empty((len(numbers), 0))
    for start in range(0, len(decoder), ROWS_PER_BLOCK):
        block = decoder[start : start + ROWS_PER_BLOCK]
        cosines = (unit @ (block * inverse_norms(block)[:, None]).T).clamp_(-1.0, 1.0)
        here = torch.arange(start, start + len(block), device=decoder.device)
        cosines[numbers[:, None] == here] = -torch.inf
        values = torch.cat([values, cosines], dim=1)
        columns = torch.cat([columns, here.expand(len(numbers), -1)], dim=1)
        kept = values.topk(min(k, values.shape[1]), dim=1)
        values, columns = kept.values, columns.gather(1, kept.indices)
        on_block()
    return columns, values


def unit_rows(
    decoder: Float[Tensor, "latents d_out"], chosen: Sequence[int]
) -> Float[Tensor, "chosen d_out"]:
    """Return some rows at length 1; a row of norm zero stays zero."""
    rows = decoder[torch.tensor(list(chosen), dtype=torch.long, device=decoder.device)]
    return rows * inverse_norms(rows)[:, None]
