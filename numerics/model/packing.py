"""Products in float32 with one side packed for the processor's own kernels (oneDNN).

What is multiplied many times is packed once: the weights of linear layers for a whole run, the
states for a pass over the vocabulary. With AVX-512 that is a fifth faster than the plain product;
with AVX2 states gain as much or more and layers do not, so these stay plain there. The two kernels
are the ones that torch's compiler uses; where they are not there, the plain product is taken. Both
sum in float32 and differ in last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

PACKED_BYTES_MAX = 2 << 30
"""Packed weights stand in memory beside the plain ones. A model with more keeps to the plain."""
ROWS_EXPECTED = 256
"""The number of rows that weights are packed for. Another number is right, too."""


def packs(tensor: Tensor) -> bool:
    """Whether a few states gain here by being packed for the many weights that they meet."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and tensor.ndim == 2
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def packs_layer(weight: Tensor) -> bool:
    """Whether products with a layer's weights gain here by packing them."""
    return packs(weight) and torch.backends.cpu.get_cpu_capability() == "AVX512"


class Packed:
    """A matrix [n, k] in the kernels' own order, or as it is where packing gains nothing."""

    def __init__(self, matrix: Float[Tensor, "n k"], rows_expected: int = ROWS_EXPECTED) -> None:
        self._packed: Tensor | None = None
        self._plain = matrix
        if packs(matrix):
            plain = matrix.detach().contiguous()
            self._packed = torch.ops.mkldnn._reorder_linear_weight(plain, rows_expected)

    def product(
        self, rows: Float[Tensor, "... k"], bias: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, "... n"]:
        """Return rows @ matrixᵀ + bias."""
        if self._packed is None:
            return nn.functional.linear(rows, self._plain, bias)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, bias, "none", [], "")
        return found


@contextmanager
def packed_layers(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Let the linear layers of ``blocks`` multiply by packed weights in every pass inside.

    Their weights must not change meanwhile. Nothing is packed where it gains nothing, or where the
    weights are larger than ``PACKED_BYTES_MAX``.
    """
    layers = [
        module
        for block in blocks
        for module in block.modules()
        if type(module) is nn.Linear and packs_layer(module.weight)
    ]
    if sum(layer.weight.nbytes for layer in layers) > PACKED_BYTES_MAX:
        layers = []
    with ExitStack() as stack:
        for layer in layers:
            packed = Packed(layer.weight)
            stack.enter_context(_forward_of(layer, partial(packed.product, bias=layer.bias)))
        yield


@contextmanager
def _forward_of(module: nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    if "forward" in module.__dict__:  # somebody else's: it stays
        yield
        return
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]
