"""Products of half-precision weights, in float32 on processors without instructions for them.

Without such instructions torch's kernels for bfloat16 and float16 take four times as long as
float32 from some hundred rows on. A part of the weights is then widened, multiplied and forgotten,
so that memory holds them in half precision alone. Both ways sum in float32 and round once, so they
differ in the last digit of some numbers, as two processors do.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

ROWS_MIN = 64
"""With fewer rows widening the weights costs more than multiplying them."""
WEIGHTS_WIDENED_TOGETHER = 2_048
"""Outputs a part: 19 MB at 2,304 inputs. Smaller ones are slower beside other work."""


def is_slow(tensor: Tensor) -> bool:
    """Whether products with this matrix are faster in float32 here."""
    if tensor.device.type != "cpu" or tensor.dtype not in (torch.bfloat16, torch.float16):
        return False
    name = "bf16" if tensor.dtype == torch.bfloat16 else "fp16"
    supported = getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", None)
    return supported is not None and not supported()


def linear(
    rows: Float[Tensor, "... k"],
    weight: Float[Tensor, "n k"],
    bias: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "... n"]:
    """Return rows @ weightᵀ + bias in the dtype of the rows, which is that of the weights."""
    count = rows.numel() // max(1, rows.shape[-1])
    if count < ROWS_MIN or not is_slow(weight):
        return nn.functional.linear(rows, weight, bias)
    flat = rows.reshape(count, rows.shape[-1]).float()
    found = rows.new_empty(count, len(weight))
    for start in range(0, len(weight), WEIGHTS_WIDENED_TOGETHER):
        part = slice(start, start + WEIGHTS_WIDENED_TOGETHER)
        wide = None if bias is None else bias[part].float()
        found[:, part] = nn.functional.linear(flat, weight[part].float(), wide)
    return found.reshape(*rows.shape[:-1], len(weight))


class WideLinear(nn.Linear):
    """A linear layer that multiplies so."""

    def forward(self, rows: Tensor) -> Tensor:
        """Return the layer's product."""
        return linear(rows, self.weight, self.bias)


def widen_products(model: nn.Module) -> int:
    """Let a model's linear layers multiply so from now on; return how many are changed."""
    layers = [
        module for module in model.modules() if type(module) is nn.Linear and is_slow(module.weight)
    ]
    for layer in layers:
        layer.__class__ = WideLinear  # weights, hooks and names stay
    return len(layers)
