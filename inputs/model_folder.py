"""A transformers model's folder: which files are loaded, and what is refused before they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO

from loopscope.inputs.errors import InputRefused
from loopscope.inputs.files import read_json_object
from loopscope.inputs.headers import HeaderError, read_safetensors_header
from loopscope.inputs.model_files import (
    INDEX,
    WEIGHTS,
    asks_for_code,
    not_safetensors,
    pickled_among,
    shards_of,
)
from loopscope.specs.git_lfs import ADVICE, POINTER_BYTES_MIN, is_pointer
from loopscope.specs.json_values import JsonObject
from loopscope.specs.tokens import BOS_ADVICE

TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer_config.json", "special_tokens_map.json"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "vocab.json", "merges.txt", "vocab.txt",
    TOKENIZER_CONFIG, SPECIAL_TOKENS, "added_tokens.json",
    "spm.model", "sentencepiece.model", "tiktoken.model", "source.spm", "target.spm", "bpe.codes",
)  # fmt: skip
"""What a tokenizer is read from. Not chat templates: where one is used, its text is declared."""
_VOCABULARIES = frozenset(TOKENIZER_FILES[:5]) | {
    "vocab.txt", "spm.model", "sentencepiece.model", "tiktoken.model",
}  # fmt: skip
_GENERIC_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
_CONFIGS = ("config.json", "generation_config.json")
_ADAPTER = re.compile(r"adapter_config\.json|adapter_model\..+")
_ATTENTION = ("eager", "sdpa")
"""Ways to compute attention that need no further package and fetch no kernel from the hub."""
FILES_MAX = 1000


def choose_files(
    names: Collection[str], read: Callable[[str], Path], place: str, field: str
) -> list[str]:
    """Return the files that decide what is loaded: configs, tokenizer and safetensors weights."""
    if "config.json" not in names:
        raise InputRefused(field, f"{place} has no config.json; is it a Hugging Face model?")
    if adapters := sorted(filter(_ADAPTER.fullmatch, names)):
        raise InputRefused(
            field,
            f"{place} holds an adapter ({adapters[0]}), which some installations would apply and "
            "others not; merge the adapter into the weights first (merge_and_unload), or move its "
            "files out of the folder",
        )
    if not _VOCABULARIES.intersection(names):
        raise InputRefused(field, f"{place} has no tokenizer (tokenizer.json); save it there too")
    weights = _weights(names, read, place, field)
    return sorted({*weights, *(name for name in (*_CONFIGS, *TOKENIZER_FILES) if name in names)})


def _weights(
    names: Collection[str], read: Callable[[str], Path], place: str, field: str
) -> list[str]:
    if WEIGHTS in names:
        return [WEIGHTS]
    if INDEX not in names:
        pickled = pickled_among(names)
        found = f"; {pickled[0]} would have to be unpickled, which is refused" if pickled else ""
        raise InputRefused(
            field,
            f"{place} has no safetensors weights ({WEIGHTS} or {INDEX}){found}; "
            "save the model with save_pretrained",
        )
    wanted = shards_of(_read_json(read(INDEX), field))
    if pickled := not_safetensors(wanted):
        raise InputRefused(
            field,
            f"{place}: {INDEX} names {pickled[0][:80]!r}, which is not a safetensors file and "
            "might be unpickled; save the model with save_pretrained",
        )
    absent = [name for name in wanted if name not in names or "/" in name]
    if not wanted or absent or len(wanted) > FILES_MAX:
        lacking = f"lacks {absent[0][:80]}" if absent else "lists no usable files"
        raise InputRefused(field, f"{place}: {INDEX} {lacking}; fetch the model again")
    return [INDEX, *wanted]


def _read_json(path: Path, field: str) -> JsonObject:
    try:
        return read_json_object(path)
    except ValueError as error:
        raise InputRefused(field, f"{path.name} is not readable: {error}") from None


def read_config(path: Path, field: str) -> JsonObject:
    """Return a config; one that names code of the model's own is refused."""
    config = _read_json(path, field)
    if asks_for_code(config):
        raise InputRefused(
            field,
            f"{path.name} asks for code from the model's repository (auto_map); only "
            "architectures and tokenizers that ship with transformers are run",
        )
    if config.get("fast_tokenizer_files") is not None:
        raise InputRefused(
            field,
            f"{path.name} names tokenizers by version of transformers (fast_tokenizer_files); load "
            "the tokenizer and save it again with save_pretrained",
        )
    if config.get("transformers_weights") is not None:
        raise InputRefused(
            field,
            f"{path.name} names other weights (transformers_weights); rename them to "
            "model.safetensors and take that field out",
        )
    _refuse_kernels(config, path.name, field)
    return config


def _refuse_kernels(config: JsonObject, name: str, field: str) -> None:
    for part in (config, config.get("text_config")):
        for key in ("attn_implementation", "_attn_implementation"):
            asked = part.get(key) if isinstance(part, dict) else None
            if asked is not None and asked not in _ATTENTION:
                raise InputRefused(
                    field,
                    f"{name} asks for the attention {str(asked)[:60]!r} ({key}), which depends on "
                    f"what is installed; expected one of {', '.join(_ATTENTION)}, or none",
                )


def check_tokenizer(chosen: list[str], read: Callable[[str], Path], field: str) -> None:
    """Refuse a tokenizer that has no BOS, where its config shows it.

    Classes named after a model bring defaults of their own: there only a null is conclusive.
    """
    if TOKENIZER_CONFIG not in chosen:
        return
    config = read_config(read(TOKENIZER_CONFIG), field)
    generic = config.get("tokenizer_class") in _GENERIC_TOKENIZERS
    if generic and "bos_token" not in config and SPECIAL_TOKENS in chosen:
        config = _read_json(read(SPECIAL_TOKENS), field)
    if config.get("bos_token", None if generic else "its class's own") is None:
        raise InputRefused(
            field,
            f"the tokenizer has no BOS token (bos_token in {TOKENIZER_CONFIG}), and each prompt "
            f"starts with one; {BOS_ADVICE}",
        )


def refuse_pointer(path: Path, field: str) -> None:
    """Refuse a file that Git LFS left as a pointer."""
    with path.open("rb") as stream:
        if is_pointer(stream.read(POINTER_BYTES_MIN)):
            raise InputRefused(field, f"{path} {ADVICE}")


def check_weights(path: Path, field: str) -> None:
    """Refuse weights whose safetensors header is not readable or does not fit the file."""
    stream: BinaryIO
    try:
        with path.open("rb") as stream:
            read_safetensors_header(stream, path.stat().st_size)
    except HeaderError as error:
        raise InputRefused(field, f"{path}: {error}") from None
