"""Unit directions of the steering arms: one vector per arm, built from the decoders alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics.latents.mapping import inverse_norms


def summed_direction(rows: Float[Tensor, "rows d_in"]) -> Float[Tensor, " d_in"] | None:
    """Return the normalised sum of the unit rows, or None where the sum has no direction."""
    unit = rows.double() * inverse_norms(rows.double())[:, None]
    total = unit.sum(dim=0)
    norm = total.norm()
    return (total / norm).float() if norm > 1e-9 else None


def arm_directions(
    coarse_row: Float[Tensor, " d_in"], child_rows: Float[Tensor, "children d_in"]
) -> dict[str, Float[Tensor, " d_in"]]:
    """Return the unit vectors ``coarse``, ``fine`` and ``multi``, without those that are missing.

    coarse is the anchor's decoder row, fine the normalised sum of the children's unit rows, and
    multi the normalised sum of the two unit vectors. Without a fine direction, multi is left out.
    """
    directions = {
        "coarse": summed_direction(coarse_row[None]),
        "fine": summed_direction(child_rows),
    }
    found = {name: vector for name, vector in directions.items() if vector is not None}
    if len(found) == 2:
        multi = summed_direction(torch.stack([found["coarse"], found["fine"]]))
        if multi is not None:
            found["multi"] = multi
    return found
