"""Tiny random language models with tokenizers, saved as ordinary Hugging Face folders."""

from __future__ import annotations

from pathlib import Path

TEXT = """
the a of in is and to city river food capital people music old new small large near far
france paris lyon wine cheese baguette germany berlin beer spain madrid italy rome pasta
japan tokyo tea train bread sea hill house road market garden winter summer child teacher
wrote sang cooked walked bought sold built saw liked famous quiet busy blue red green . , ' !
"""
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]


def _save_tokenizer(folder: Path, with_bos: bool) -> int:
    """Save a word-level tokenizer that adds no special token itself; return the vocabulary size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {
        word: index for index, word in enumerate([*SPECIAL, *(f"▁{w}" for w in TEXT.split())])
    }
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    core.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    bos = {"bos_token": "<bos>"} if with_bos else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>", **bos
    )
    tokenizer.save_pretrained(folder)
    return len(vocabulary)


def _save_character_tokenizer(
    folder: Path,
    template: str,
    turns: list[str],
    bos: str,
    eos: str = "<eos>",
    padding: str = "<pad>",
) -> int:
    """Save a tokenizer with a token a character, a chat template and the words of its turns."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    own = [*SPECIAL, *turns, *(chr(code) for code in range(32, 127)), "\n"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(own))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.add_special_tokens([AddedToken(word, special=True) for word in (*SPECIAL, *turns)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos, pad_token=padding, unk_token="<unk>",
        bos_token=bos, extra_special_tokens=turns,
    )  # fmt: skip
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return len(vocabulary)


def save_chat_model(folder: Path, template: str, turns: list[str], bos: str = "<bos>") -> Path:
    """Save a GPT-2-shaped model of characters that comes with a chat template. 2 layers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    vocabulary = _save_character_tokenizer(folder, template, turns, bos)
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=256, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    _save(GPT2LMHeadModel, config, folder, seed=5)
    return folder


def save_turn_model(folder: Path, template: str, turns: list[str]) -> Path:
    """Save a Llama-shaped chat model whose turn ends with EOS, which pads as well. 2 layers.

    The first of ``turns`` is BOS, the second EOS and padding; the head is the embedding, as in
    SmolLM2.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    begin, end = turns
    vocabulary = _save_character_tokenizer(folder, template, turns, begin, end, end)
    bos, eos = (len(SPECIAL) + place for place in (0, 1))
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=3, num_key_value_heads=1, head_dim=8, max_position_embeddings=256,
        bos_token_id=bos, eos_token_id=eos, pad_token_id=eos, tie_word_embeddings=True,
    )  # fmt: skip
    _save(LlamaForCausalLM, config, folder, seed=6)
    return folder


def _save(model_class: type, config: object, folder: Path, seed: int) -> None:
    """Initialise with spread-out weights, so that attention, positions and order matter."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        for name, parameter in model.named_parameters():
            if "norm" not in name and "ln_" not in name:
                parameter.data.normal_(std=0.25)
    model.save_pretrained(folder)


def save_rope_model(folder: Path, *, seed: int = 0, with_bos: bool = True) -> Path:
    """Save a Gemma-2-shaped model: RoPE, grouped keys, soft-capped logits. d_model 32, 4 layers."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    vocabulary = _save_tokenizer(folder, with_bos)
    config = Gemma2Config(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        max_position_embeddings=128,
        sliding_window=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    _save(Gemma2ForCausalLM, config, folder, seed)
    return folder


def save_learned_position_model(folder: Path, *, seed: int = 1, with_bos: bool = True) -> Path:
    """Save a GPT-2-shaped model: learned positions, LayerNorm. d_model 32, 3 layers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    vocabulary = _save_tokenizer(folder, with_bos)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=128,
        n_embd=32,
        n_layer=3,
        n_head=4,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    _save(GPT2LMHeadModel, config, folder, seed)
    return folder


def folder_reference(folder: Path, name: str = "tiny/model") -> dict[str, object]:
    """Return the payload reference of a saved folder, hashed as the resolver does."""
    import hashlib

    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    identity = hashlib.sha256("".join(files.values()).encode()).hexdigest()
    return {
        "name": name,
        "dtype": "float32",
        "identity": identity,
        "source": {"kind": "folder", "path": str(folder)},
        "files": files,
    }
