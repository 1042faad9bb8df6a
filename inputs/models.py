"""Descriptions of models: resolved files, their hashes, and facts from headers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from loopscope.inputs.errors import InputRefused
from loopscope.inputs.files import HashMemo
from loopscope.inputs.gguf_header import GgufFacts, read_gguf_facts
from loopscope.inputs.headers import HeaderError
from loopscope.inputs.hub import Hub, HubCommit
from loopscope.inputs.model_folder import (
    TOKENIZER_FILES,
    check_tokenizer,
    check_weights,
    choose_files,
    read_config,
    refuse_pointer,
)
from loopscope.inputs.model_shape import block_weights, has_parallel_blocks, inner_widths
from loopscope.inputs.packages import find_packaged_gguf
from loopscope.specs.canonical import digest
from loopscope.specs.hooks import Hook
from loopscope.specs.json_values import JsonObject
from loopscope.specs.payloads.references import HubPlace, ModelPlace, ModelReference, PackagePlace
from loopscope.specs.spec_json import ModelJson, ModelSourceJson

CONVERTER_REVISIONS = {"gguf-dequantise": 1, "as-published": 1}
"""How files become a loaded model. Raise a number by hand when the same files load differently."""
QUANTISER_REVISION = 1
"""The same of rounding weights while they are loaded."""
DTYPES = ("float32", "bfloat16", "float16")
HUB_REPOSITORIES = {"gemma-2-2b": "google/gemma-2-2b", "gpt2-small": "openai-community/gpt2"}
"""TransformerLens' short names of the models in the examples."""

_SPLIT_GGUF = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")


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
    block_weights: int | None = None
    vocabulary: int | None = None

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
    return ModelFacts(
        ref,
        facts.d_model,
        facts.n_layers,
        facts.architecture,
        _also_rounded(quantised, ref),
        block_weights=facts.block_weights,
        vocabulary=facts.vocabulary,
    )


def _from_folder(model: ModelJson, folder: Path, memo: HashMemo) -> ModelFacts:
    field = "source.folder"
    if not folder.is_dir():
        raise InputRefused(field, f"there is no folder {folder}")
    names = {entry.name for entry in folder.iterdir() if entry.is_file()}
    chosen = choose_files(names, lambda name: folder / name, str(folder), field)
    for name in chosen:
        refuse_pointer(folder / name, field)
    config = read_config(folder / "config.json", field)
    if "bosToken" not in model:
        check_tokenizer(chosen, lambda name: folder / name, field)
    for name in chosen:
        if name.endswith(".safetensors"):
            check_weights(folder / name, field)
    files = {name: memo.sha256(folder / name) for name in chosen}
    return _safetensors_model(model, {"kind": "folder", "path": str(folder)}, files, config, field)


def _from_hub(model: ModelJson, source: ModelSourceJson, hub: Hub, memo: HashMemo) -> ModelFacts:
    field = "source.hub" if "hub" in source else "name"
    named = str(source.get("hub", model["name"]))
    at = hub.commit(HUB_REPOSITORIES.get(named, named), source.get("revision", "main"), field)
    chosen = choose_files(
        at.files.keys(), lambda name: hub.download(at, name, field), _place(at), field
    )
    config = read_config(hub.download(at, "config.json", field), field)
    if "bosToken" not in model:
        check_tokenizer(chosen, lambda name: hub.download(at, name, field), field)
    files = {name: hub.sha256(at, name, field, memo) for name in chosen}
    place: HubPlace = {"kind": "hub", "repo": at.repo, "revision": at.commit}
    return _safetensors_model(model, place, files, config, field)


def _place(at: HubCommit) -> str:
    return f"{at.repo} at {at.commit[:12]}"


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
        if "quantised" in model:
            raise InputRefused(
                "quantised", f"the model is {quantised}; leave quantised out, or name the original"
            )
    ref = _reference(model, place, files, "as-published")
    return ModelFacts(
        ref,
        d_model,
        _count(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers"),
        str(listed),
        _also_rounded(quantised, ref),
        **inner_widths(text, d_model),
        parallel=has_parallel_blocks(text),
        block_weights=block_weights(text, d_model),
        vocabulary=_count(text, "vocab_size"),
    )


def _also_rounded(quantised: str | None, ref: ModelReference) -> str | None:
    """Return how weights differ from the original, with what is done to them while they load."""
    rounded = f"{ref['quantised']} while it is loaded" if "quantised" in ref else None
    return ", ".join(filter(None, (quantised, rounded))) or None


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
    decisive: dict[str, object] = {
        "files": sorted(sha256 for name, sha256 in files.items() if name not in tokenizer),
        "tokenizer": digest(tokenizer) if tokenizer else None,
        "converter": [converter, CONVERTER_REVISIONS[converter]],
        "dtype": dtype,
    }
    bos_token = model.get("bosToken")
    if bos_token is not None:
        decisive["bos_token"] = bos_token
    reference: ModelReference = {
        "name": model["name"],
        "dtype": dtype,
        "identity": digest(decisive),
        "source": place,
        "files": files,
    }
    if bos_token is not None:
        reference["bos_token"] = bos_token
    if "quantised" in model:
        decisive["quantised"] = [model["quantised"], QUANTISER_REVISION]
        reference["quantised"] = model["quantised"]
        reference["unquantised"] = reference["identity"]
        reference["identity"] = digest(decisive)
    return reference
