"""The parts of a model's blocks, as TransformerLens' adapter of its architecture names them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loopscope.numerics.model.causal_model import BlockParts


def block_parts(bridge: Any) -> BlockParts:
    """Return the parts of the blocks of a ``TransformerBridge``, by their paths in Hugging Face.

    Only of blocks whose MLP reads the residual stream through a norm and adds to it unscaled: of
    any other, no part is known and no place within a block can be named.
    """
    from transformer_lens.model_bridge.generalized_components.block import (
        BlockBridge,
        ParallelBlockBridge,
    )

    block = bridge.blocks[0]
    if type(block) not in (BlockBridge, ParallelBlockBridge) or block.mlp_reads_resid_directly:
        return BlockParts()
    return BlockParts(dict(_paths(block)), parallel=isinstance(block, ParallelBlockBridge))


def _paths(component: Any, name: str = "", path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the parts of a component, and theirs: each by its name, with its path."""
    for part, inner in component.submodules.items():
        if inner.name:
            here = f"{name}{part}", f"{path}{inner.name}"
            yield here
            yield from _paths(inner, f"{here[0]}.", f"{here[1]}.")
