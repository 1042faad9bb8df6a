"""Tiny random models of the families whose places are tested, and what their blocks are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tiny_models import (
    _save,
    _save_tokenizer,
    save_learned_position_model,
    save_rope_model,
)


@dataclass(frozen=True)
class Family:
    """How a model is saved, and the attributes of a block in Hugging Face's code, by hand.

    ``attention_after`` and ``mlp_after`` are norms behind attention and MLP, None without one;
    ``offset`` is what such a model's RMSNorm adds to its weight, None for a LayerNorm.
    """

    save: Callable[[Path], Path]
    attention: str
    projection: str
    mlp_norm: str
    mlp_down: str
    offset: float | None
    attention_after: str | None = None
    mlp_after: str | None = None
    parallel: bool = False


def _saved(prefix: str, config_class: str = "", **settings: Any) -> Callable[[Path], Path]:
    """Return what saves a model of two blocks: width 24, 3 heads of 10, MLP of 40."""

    def save(folder: Path) -> Path:
        import transformers

        vocabulary = _save_tokenizer(folder, with_bos=True)
        shape = {
            "vocab_size": vocabulary, "hidden_size": 24, "intermediate_size": 40,
            "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": 64,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip
        config = getattr(transformers, config_class or f"{prefix}Config")(**{**shape, **settings})
        _save(getattr(transformers, f"{prefix}ForCausalLM"), config, folder, seed=3)
        return folder

    return save


_ROTATED = {"num_key_value_heads": 1, "head_dim": 10}
_GEMMA = {
    "attention": "self_attn", "projection": "self_attn.o_proj",
    "mlp_norm": "pre_feedforward_layernorm", "mlp_down": "mlp.down_proj", "offset": 1.0,
    "attention_after": "post_attention_layernorm", "mlp_after": "post_feedforward_layernorm",
}  # fmt: skip
_LLAMA = {
    "attention": "self_attn", "projection": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm", "mlp_down": "mlp.down_proj", "offset": 0.0,
}  # fmt: skip
_NEOX = {
    "attention": "attention", "projection": "attention.dense",
    "mlp_norm": "post_attention_layernorm", "mlp_down": "mlp.dense_4h_to_h", "offset": None,
}  # fmt: skip
FAMILIES: Mapping[str, Family] = {
    "gemma-2": Family(save_rope_model, **_GEMMA),
    "gemma-3": Family(
        _saved(
            "Gemma3", "Gemma3TextConfig", **_ROTATED, query_pre_attn_scalar=10, sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        **_GEMMA,
    ),
    "gpt-2": Family(
        save_learned_position_model, "attn", "attn.c_proj", "ln_2", "mlp.c_proj", offset=None
    ),
    "llama": Family(_saved("Llama", **_ROTATED), **_LLAMA),
    "qwen-2": Family(_saved("Qwen2", num_key_value_heads=1), **_LLAMA),
    "qwen-3": Family(_saved("Qwen3", **_ROTATED), **_LLAMA),
    "pythia": Family(_saved("GPTNeoX"), **_NEOX, parallel=True),
    "neox-sequential": Family(_saved("GPTNeoX", use_parallel_residual=False), **_NEOX),
}  # fmt: skip
"""By name; ``transformers`` has a class of each."""
