"""Write the planted world: a toy language model, three dictionaries of it, and all texts.

Every weight follows from a hierarchy that is known, so that gate, mapping and verdict have a right
answer. Run it again to write the same files:

    python examples/planted/make_world.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import grammar  # noqa: E402 - siblings of this script
from world import HOOK, LAYERS, NEURONS, PLANTED, WIDTH, Floats, build  # noqa: E402


def write(folder: Path) -> None:
    """Write the whole world under ``folder``."""
    world = build()
    _write_model(folder / "model", world.model)
    for name in ("coarse", "middle", "fine"):
        _write_dictionary(folder / name, getattr(world, name))
    (folder / "texts").mkdir(exist_ok=True)
    for name, lines in grammar.texts().items():
        (folder / "texts" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    truth = {"parent": PLANTED, "children": world.children, "middle": world.groups}
    _write_json(folder / "truth.json", truth)


def _write_model(folder: Path, weights: dict[str, Floats]) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {
        word if word in grammar.SPECIAL else f"▁{word}": place
        for place, word in enumerate(grammar.VOCABULARY)
    }
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    core.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=NEURONS,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=WIDTH,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ).save_pretrained(folder)
    _write_tensors(folder / "model.safetensors", weights)


def _write_dictionary(folder: Path, weights: dict[str, Floats]) -> None:
    latents, width = weights["W_dec"].shape
    folder.mkdir(parents=True, exist_ok=True)
    _write_tensors(folder / "sae_weights.safetensors", weights)
    config: dict[str, Any] = {
        "architecture": "standard",
        "d_in": width,
        "d_sae": latents,
        "dtype": "float16",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"hook_name": HOOK, "prepend_bos": True},
    }
    _write_json(folder / "cfg.json", config)


def _write_tensors(path: Path, tensors: dict[str, Floats]) -> None:
    """Write in half precision: twice as small, and as exact as a world needs that was made so."""
    half = {name: np.ascontiguousarray(part, dtype=np.float16) for name, part in tensors.items()}
    save_file(half, path, metadata={"format": "pt"})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(HERE)
    print(f"wrote the planted world under {HERE}")
