"""The inside of a model's blocks, as far as a Hugging Face config can be relied on.

What it leaves to defaults in the code of its architecture is not guessed: the worker, which has the
modules, looks there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from loopscope.specs.json_values import Json

_HEADS_FILL_THE_WIDTH = frozenset({"gpt2", "gpt_neox", "llama", "opt", "qwen2"})
"""Model types whose heads are together as wide as the model, unless ``head_dim`` is given."""
_PARALLEL_BY_DEFAULT: Mapping[str, str | None] = {
    "gpt_neox": "use_parallel_residual",
    "falcon": "parallel_attn",
    "codegen": None,
    "cohere": None,
    "cohere2": None,
    "gptj": None,
    "phi": None,
}
"""Model types with parallel blocks, and the field that can switch that off, where there is one."""

_PLAIN_MLP = frozenset(
    ("gpt2", "gpt_neox", "gptj", "gpt_neo", "opt", "bloom", "falcon", "phi", "codegen")
)
"""Model types whose MLP is two matrices; that of the others is gated and has three."""


class InnerWidths(TypedDict):
    """Widths within a block, None when unknown."""

    d_heads: int | None
    d_mlp: int | None


def inner_widths(config: Mapping[str, Json], d_model: int) -> InnerWidths:
    """Return how wide all attention heads are together, and the MLP inside."""
    heads, head_dim = _count(config, "num_attention_heads"), _count(config, "head_dim")
    d_heads = heads * head_dim if heads and head_dim else None
    if d_heads is None and not head_dim and config.get("model_type") in _HEADS_FILL_THE_WIDTH:
        d_heads = d_model
    d_mlp = _count(config, "intermediate_size") or _count(config, "n_inner")
    if d_mlp is None and config.get("model_type") == "gpt2":
        d_mlp = 4 * d_model
    mixed = any(name in config for name in ("num_experts", "num_local_experts", "n_routed_experts"))
    return {"d_heads": d_heads, "d_mlp": None if mixed else d_mlp}


def block_weights(config: Mapping[str, Json], d_model: int) -> int | None:
    """Return the weights in the matrices of one block, None when unknown.

    Query and output are as wide as all heads, key and value as their groups.
    """
    widths = inner_widths(config, d_model)
    d_heads, d_mlp = widths["d_heads"], widths["d_mlp"]
    if d_heads is None or d_mlp is None:
        return None
    heads = _count(config, "num_attention_heads") or _count(config, "n_head") or 1
    d_groups = d_heads * (_count(config, "num_key_value_heads") or heads) // heads
    matrices = 2 if config.get("model_type") in _PLAIN_MLP else 3
    return d_model * (2 * d_heads + 2 * d_groups + matrices * d_mlp)


def has_parallel_blocks(config: Mapping[str, Json]) -> bool:
    """Return whether attention and MLP of a block read the same stream, as far as is known."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in _PARALLEL_BY_DEFAULT:
        return False
    switch = _PARALLEL_BY_DEFAULT[model_type]
    return switch is None or config.get(switch, True) is not False


def _count(config: Mapping[str, Json], name: str) -> int | None:
    value = config.get(name)
    return value if type(value) is int and value > 0 else None
