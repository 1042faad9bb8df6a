"""What a model's blocks are made of, as TransformerLens' adapter of its architecture says."""

from __future__ import annotations

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
    return BlockParts(
        attention=_path(block, "attn"),
        attention_projection=_path(block, "attn", "o"),
        attention_norm_after=_path(block, "ln1_post"),
        mlp_norm=_path(block, "ln2"),
        mlp=_path(block, "mlp"),
        mlp_projection=_path(block, "mlp", "out"),
        mlp_norm_after=_path(block, "ln2_post"),
        parallel=isinstance(block, ParallelBlockBridge),
    )


def _path(component: Any, *names: str) -> str | None:
    """Return the path of a component's part, by the names of the components on the way."""
    steps: list[str] = []
    for name in names:
        component = component.submodules.get(name)
        if component is None or not component.name:
            return None
        steps.append(component.name)
    return ".".join(steps)
