"""Descriptions of models: resolved files, their hashes, and facts from headers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from loopscope.inputs.errors import InputRefused
from loopscope.inputs.files import HashMemo, read_json_object
from loopscope.inputs.gguf_header import GgufFacts, read_gguf_facts
from loopscope.inputs.headers import HeaderError, read_safetensors_header
from loopscope.inputs.hub import Hub, HubCommit
from loopscope.inputs.model_files import (
    INDEX,
    WEIGHTS,
    asks_for_code,
    not_safetensors,
    pickled_among,
    shards_of,
)
from loopscope.inputs.model_shape import has_parallel_blocks, inner_widths
from loopscope.inputs.packages import find_packaged_gguf
from loopscope.specs.canonical import digest
from loopscope.specs.git_lfs import ADVICE, POINTER_BYTES_MIN, is_pointer
from loopscope.specs.hooks import Hook
from loopscope.specs.json_values import JsonObject
from loopscope.specs.payloads.references import HubPlace, ModelPlace, ModelReference, PackagePlace
from loopscope.specs.spec_json import ModelJson, ModelSourceJson
from loopscope.specs.tokens import BOS_ADVICE

CONVERTER_REVISIONS = {"gguf-dequantise": 1, "as-published": 1}
"""How files become a loaded model. Raise a number by hand when the same files load differently."""
DTYPES = ("float32", "bfloat16", "float16")
FILES_MAX = 1000
HUB_REPOSITORIES = {"gemma-2-2b": "google/gemma-2-2b", "gpt2-small": "openai-community/gpt2"}
"""TransformerLens' short names of the models in the examples."""

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
_SPLIT_GGUF = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
_ATTENTION = ("eager", "sdpa")
"""Ways to compute attention that need no further package and fetch no kernel from the hub."""


@dataclass(frozen=True)
class ModelFacts:
    """A resolved model.

    ``ref`` is what a job carries: name, dtype, identity, source, files (name -> sha256).
    ``quantised`` is None for weights as published; otherwise it is how they differ from the
    original, for example ``Q4_K_M, dequantised``. ``n_layers`` is None when unknown; so are the
    widths of all attention heads together (``d_heads``) and of the MLP inside (``d_mlp``). Blocks
    are ``parallel`` whose MLP reads what attention reads, as far as the config says so.
    ``chat_template`` is there where it was asked for.
    """

    ref: ModelReference
    d_model: int
    n_layers: int | None
    architecture: str
    quantised: str | None
    d_heads: int | None = None
    d_mlp: int | None = None
    parallel: bool = False
    chat_template: str | None = None

    def width(self, hook: Hook) -> int | None:
        """Return how wide a stream is, None when unknown."""
        widths = {"d_model": self.d_model, "d_heads": self.d_heads, "d_mlp": self.d_mlp}
        return widths[hook.width]


def describe_model(
    model: ModelJson, *, hub: Hub | None = None, memo: HashMemo | None = None
) -> ModelFacts:
    """Resolve a spec's ``model`` (name, source, dtype) to files, hashes and facts.

    Raises ``InputRefused`` when the reference is wrong and ``ResolutionPending`` when the hub
    cannot be asked now. Twice the same files give twice the same ``ref``.
    """
    if model.get("dtype", "float32") not in DTYPES:
        raise InputRefused("dtype", f"unknown dtype {model['dtype']!r}; use {', '.join(DTYPES)}")
    given = model.get("source") or {}
    source = cast(ModelSourceJson, {key: v for key, v in given.items() if v is not None})
    memo = memo or HashMemo()
    try:
        if "package" in source:
            return _from_package(model, source, memo)
        if "gguf" in source:
            return _from_gguf(model, source, memo)
        if "folder" in source:
            return _from_folder(model, Path(source["folder"]), memo)
    except OSError as error:
        place = next(key for key in ("package", "gguf", "folder") if key in source)
        raise InputRefused(
            f"source.{place}", f"{error.filename or source[place]} cannot be read: {error.strerror}"
        ) from None
    if source and "hub" not in source:
        raise InputRefused("source", "expected one of package, gguf, folder, hub")
    return _from_hub(model, source, hub or Hub(), memo)


def _from_package(model: ModelJson, source: ModelSourceJson, memo: HashMemo) -> ModelFacts:
    found = find_packaged_gguf(source["package"])
    sha256 = memo.sha256(*found.parts)
    _check_declared(source, sha256, f"{found.name} of package {source['package']}")
    facts = _gguf_facts(found.parts[0], "source.package")
    place: PackagePlace = {"kind": "package", "package": source["package"], "sha256": sha256}
    return _gguf_model(model, place, {found.name: sha256}, facts)


def _from_gguf(model: ModelJson, source: ModelSourceJson, memo: HashMemo) -> ModelFacts:
    path = Path(source["gguf"])
    if not path.is_file():
        raise InputRefused("source.gguf", f"there is no file {path}")
    if part := _SPLIT_GGUF.search(path.name):
        raise InputRefused(
            "source.gguf",
            f"{path.name} is one part of {int(part[1])}, and the converter reads one; put them "
            "together with llama.cpp's gguf-split --merge",
        )
    facts = _gguf_facts(path, "source.gguf")
    sha256 = memo.sha256(path)
    _check_declared(source, sha256, str(path))
    return _gguf_model(model, {"kind": "gguf", "path": str(path)}, {path.name: sha256}, facts)


def _check_declared(source: ModelSourceJson, sha256: str, what: str) -> None:
    declared = source.get("sha256")
    if declared is not None and declared != sha256:
        raise InputRefused(
            "source.sha256",
            f"expected {declared}, found {sha256} for {what}; if that file is the one you "
            "want, write its hash here",
        )


def _gguf_facts(path: Path, field: str) -> GgufFacts:
    try:
        with path.open("rb") as stream:
            return read_gguf_facts(stream)
    except HeaderError as error:
        raise InputRefused(field, f"{path}: {error}") from None


def _gguf_model(
    model: ModelJson, place: ModelPlace, files: dict[str, str], facts: GgufFacts
) -> ModelFacts:
    ref = _reference(model, place, files, "gguf-dequantise")
    quantised = f"{facts.quantised}, dequantised" if facts.quantised else None
    return ModelFacts(ref, facts.d_model, facts.n_layers, facts.architecture, quantised)


def _from_folder(model: ModelJson, folder: Path, memo: HashMemo) -> ModelFacts:
    field = "source.folder"
    if not folder.is_dir():
        raise InputRefused(field, f"there is no folder {folder}")
    names = {entry.name for entry in folder.iterdir() if entry.is_file()}
    chosen = _choose_files(names, lambda name: folder / name, str(folder), field)
    for name in chosen:
        _refuse_pointer(folder / name, field)
    config = _read_config(folder / "config.json", field)
    _check_tokenizer(chosen, lambda name: folder / name, field)
    for name in chosen:
        if name.endswith(".safetensors"):
            _check_weights(folder / name, field)
    files = {name: memo.sha256(folder / name) for name in chosen}
    return _safetensors_model(model, {"kind": "folder", "path": str(folder)}, files, config, field)


def _refuse_pointer(path: Path, field: str) -> None:
    with path.open("rb") as stream:
        if is_pointer(stream.read(POINTER_BYTES_MIN)):
            raise InputRefused(field, f"{path} {ADVICE}")


def _check_weights(path: Path, field: str) -> None:
    stream: BinaryIO
    try:
        with path.open("rb") as stream:
            read_safetensors_header(stream, path.stat().st_size)
    except HeaderError as error:
        raise InputRefused(field, f"{path}: {error}") from None


def _from_hub(model: ModelJson, source: ModelSourceJson, hub: Hub, memo: HashMemo) -> ModelFacts:
    field = "source.hub" if "hub" in source else "name"
    named = str(source.get("hub", model["name"]))
    at = hub.commit(HUB_REPOSITORIES.get(named, named), source.get("revision", "main"), field)
    chosen = _choose_files(
        at.files.keys(), lambda name: hub.download(at, name, field), _place(at), field
    )
    config = _read_config(hub.download(at, "config.json", field), field)
    _check_tokenizer(chosen, lambda name: hub.download(at, name, field), field)
    files = {name: hub.sha256(at, name, field, memo) for name in chosen}
    place: HubPlace = {"kind": "hub", "repo": at.repo, "revision": at.commit}
    return _safetensors_model(model, place, files, config, field)


def _place(at: HubCommit) -> str:
    return f"{at.repo} at {at.commit[:12]}"


def _choose_files(
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


def _read_config(path: Path, field: str) -> JsonObject:
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


def _check_tokenizer(chosen: list[str], read: Callable[[str], Path], field: str) -> None:
    """Refuse a tokenizer that has no BOS, where its config shows it.

    Classes named after a model bring defaults of their own: there only a null is conclusive.
    """
    if TOKENIZER_CONFIG not in chosen:
        return
    config = _read_config(read(TOKENIZER_CONFIG), field)
    generic = config.get("tokenizer_class") in _GENERIC_TOKENIZERS
    if generic and "bos_token" not in config and SPECIAL_TOKENS in chosen:
        config = _read_json(read(SPECIAL_TOKENS), field)
    if config.get("bos_token", None if generic else "its class's own") is None:
        raise InputRefused(
            field,
            f"the tokenizer has no BOS token (bos_token in {TOKENIZER_CONFIG}), and each prompt "
            f"starts with one; {BOS_ADVICE}",
        )


def _safetensors_model(
    model: ModelJson,
    place: ModelPlace,
    files: dict[str, str],
    config: JsonObject,
    field: str,
) -> ModelFacts:
    text = config.get("text_config")
    text = text if isinstance(text, dict) else config
    d_model = _count(text, "hidden_size", "n_embd", "d_model", "dim")
    if d_model is None:
        raise InputRefused(
            field, "config.json names no width (hidden_size); is it a language model?"
        )
    names = config.get("architectures")
    listed = names[0] if isinstance(names, list) and names else config.get("model_type", "unknown")
    quantisation = config.get("quantization_config")
    quantised = None
    if isinstance(quantisation, dict):
        quantised = f"{quantisation.get('quant_method', 'unknown')}, published quantised"
    return ModelFacts(
        _reference(model, place, files, "as-published"),
        d_model,
        _count(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers"),
        str(listed),
        quantised,
        **inner_widths(text, d_model),
        parallel=has_parallel_blocks(text),
    )


def _count(config: JsonObject, *names: str) -> int | None:
    values = (config.get(name) for name in names)
    return next((value for value in values if type(value) is int and value > 0), None)


def _reference(
    model: ModelJson, place: ModelPlace, files: dict[str, str], converter: str
) -> ModelReference:
    """Return the job's model reference.

    The identity leaves out names and places: the same bytes, loaded in the same way, are the
    same model. A GGUF file contains its tokenizer.
    """
    dtype = model.get("dtype", "float32")
    tokenizer = {name: sha256 for name, sha256 in files.items() if name in TOKENIZER_FILES}
    identity = digest(
        {
            "files": sorted(sha256 for name, sha256 in files.items() if name not in tokenizer),
            "tokenizer": digest(tokenizer) if tokenizer else None,
            "converter": [converter, CONVERTER_REVISIONS[converter]],
            "dtype": dtype,
        }
    )
    return {
        "name": model["name"],
        "dtype": dtype,
        "identity": identity,
        "source": place,
        "files": files,
    }
