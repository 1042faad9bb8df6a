"""Norms before their weights are applied: TransformerLens' ``hook_normalized``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

AGREEMENT_TOLERANCE = 0.02
"""Largest accepted difference, relative to the largest number, of a norm and its formula: a wrong
formula is far off, bfloat16 is not."""


@dataclass(frozen=True)
class Normalisation:
    """``gain * (x - mean x) / sqrt(variance + epsilon) + bias``; without the mean in an RMSNorm.

    ``gain`` is what the norm really multiplies by: 1 + weight in Gemma's.
    """

    centres: bool
    epsilon: float
    gain: Float[Tensor, " d_model"]

    def normalised(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Return the rows before gain and bias, float32."""
        rows = x.float()
        if self.centres:
            rows = rows - rows.mean(dim=-1, keepdim=True)
        return rows * torch.rsqrt(rows.square().mean(dim=-1, keepdim=True) + self.epsilon)


@torch.no_grad()
def normalisation_of(norm: nn.Module) -> Normalisation | None:
    """Return what ``norm`` computes, or None where the formula is not that of its outputs.

    Nothing is taken from its name: gain and bias are what it makes of two opposite rows, whose
    numbers are ±1 once normalised, and the formula is compared with it on a third.
    """
    weight = getattr(norm, "weight", None)
    epsilon = getattr(norm, "eps", getattr(norm, "variance_epsilon", None))
    if not isinstance(weight, Tensor) or weight.ndim != 1 or not isinstance(epsilon, float):
        return None
    compute = norm.forward  # hooks on the norm are for what a model computes
    signs = torch.ones_like(weight)  # of the weight's type: a LayerNorm takes no other
    signs[1::2] = -1
    length = 1e3  # epsilon is nothing beside it, and bfloat16 holds it exactly
    up, down = compute(length * signs).float(), compute(-length * signs).float()
    gain, bias = (up - down) / 2 * signs.float(), (up + down) / 2
    tried = torch.linspace(-1, 3, len(signs), device=weight.device).to(weight.dtype) * signs
    for centres in (False, True):
        found = Normalisation(centres, epsilon, gain)
        expected = compute(tried).float()
        error = (found.normalised(tried) * gain + bias - expected).abs().max()
        if bool(error <= AGREEMENT_TOLERANCE * expected.abs().max()):
            return found
    return None
