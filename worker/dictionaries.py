"""Loading of sparse dictionaries: verified bytes in, float32 weights out, nothing unpickled here.

Whatever a format declares about scaling is either folded into the weights or refused by name; a
flag is never silently skipped.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from loopscope.inputs.architectures import ARCHITECTURES
from loopscope.inputs.files import default_cache, read_json_object
from loopscope.inputs.gemma_scope import GEMMA_SCOPE_ARCHITECTURE, check_gemma_scope_config
from loopscope.inputs.layouts import BY_FORMAT
from loopscope.inputs.layouts.layout import Layout
from loopscope.inputs.saelens_config import read_saelens_config
from loopscope.numerics.architectures import dictionary_of
from loopscope.numerics.dictionaries.sparse import SparseDictionary
from loopscope.specs.json_values import JsonObject
from loopscope.specs.payloads.references import (
    DictionaryPlace,
    DictionaryReference,
    HubFolderPlace,
)
from loopscope.state.failures import TerminalFailure
from loopscope.state.files import file_sha256
from loopscope.worker.downloads import downloading
from loopscope.worker.saelens import Weights, saelens_weights
from loopscope.worker.sealed.conversion import converted
from loopscope.worker.stored import stored_weights

Config = TypeVar("Config")
PICKLED = (".pt", ".pth")


def load_dictionary(ref: DictionaryReference) -> SparseDictionary:
    """Return the dictionary of a DictionaryRef, on the CPU, every weight float32.

    Raises ``TerminalFailure`` with reason ``InputMissing`` or ``InputChanged`` for files that are
    gone or differ from their recorded sha256, ``UnsupportedDictionary`` for what cannot be
    applied exactly, ``NotFinite`` for weights that are not numbers; ``TransientFailure`` with
    reason ``HubUnreachable`` when a download fails.
    """
    layout, loader = BY_FORMAT.get(ref["format"]), _LOADERS.get(ref["format"])
    if layout is None and loader is None:
        known = ", ".join(sorted([*_LOADERS, *BY_FORMAT]))
        raise TerminalFailure(
            "UnsupportedDictionary", f"format {ref['format']!r} is not one of {known}"
        )
    paths = {name: _verified(ref, name) for name in ref["files"]}
    if loader is not None:
        return _built(loader(paths), ref)
    assert layout is not None  # one of the two
    return _built(_load_stored(layout, ref, paths), ref)


def _verified(ref: DictionaryReference, name: str) -> Path:
    """Return the path of one of the dictionary's files, its bytes checked."""
    path = _located(ref["source"], name)
    expected = ref["files"][name]
    try:
        found = file_sha256(path)
    except OSError as error:
        raise TerminalFailure(
            "InputMissing",
            f"{path} cannot be read ({error.strerror}); put it back or edit the spec",
        ) from error
    if found != expected:
        raise TerminalFailure(
            "InputChanged",
            f"{path} has sha256 {found}, expected {expected}; restore the file, or apply again "
            "to accept the new one",
        )
    return path


def _located(source: DictionaryPlace, name: str) -> Path:
    match source["kind"]:
        case "folder":
            return Path(source["path"]) / name
        case "file":
            return Path(source["path"])
        case "hub":
            return _downloaded(source, name)
        case kind:
            raise TerminalFailure(
                "UnsupportedDictionary", f"a dictionary source of kind {kind!r} is not known"
            )


def _downloaded(source: HubFolderPlace, name: str) -> Path:
    """Return a file of the repository at the recorded commit, from the cache if it is there."""
    inside = f"{source['path']}/{name}" if source["path"] else name
    with downloading(source["repo"], source["revision"], "InputMissing"):
        return Path(hf_hub_download(source["repo"], inside, revision=source["revision"]))


def _load_saelens(paths: Mapping[str, Path]) -> Weights:
    config = _config(_file(paths, "cfg.json"), read_saelens_config)
    return saelens_weights(config, _tensors(_file(paths, "sae_weights.safetensors")))


_NOT_ARRAYS = (
    ValueError, TypeError, OSError, EOFError, KeyError, SyntaxError, NotImplementedError,
    RuntimeError, OverflowError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What ``zipfile`` and numpy raise for bytes that are not an archive of plain arrays."""


def _load_gemma_scope_npz(paths: Mapping[str, Path]) -> Weights:
    path = _only(paths, ".npz")
    return _gemma_scope(_arrays(path), path.name)


def _arrays(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except _NOT_ARRAYS as error:
        raise TerminalFailure(
            "UnsupportedDictionary", f"{path.name} holds more than plain arrays: {error}"
        ) from error


def _load_gemma_scope_safetensors(paths: Mapping[str, Path]) -> Weights:
    if "config.json" in paths:
        _config(paths["config.json"], check_gemma_scope_config)
    path = _only(paths, ".safetensors")
    return _gemma_scope(_tensors(path), path.name)


def _gemma_scope(arrays: Mapping[str, Tensor], name: str) -> Weights:
    """Return a Gemma Scope SAE (Lieberum et al. 2024): b_dec is not applied to the input."""
    lowered = {key.lower(): tensor for key, tensor in arrays.items()}
    expected = ARCHITECTURES[GEMMA_SCOPE_ARCHITECTURE].tensors.keys()
    missing, extra = expected - lowered.keys(), lowered.keys() - expected
    if missing or extra:
        raise TerminalFailure(
            "UnsupportedDictionary",
            f"{name} lacks {sorted(missing)} and adds {sorted(extra)}; expected the five arrays "
            "of a Gemma Scope SAE of the residual stream",
        )
    return Weights(GEMMA_SCOPE_ARCHITECTURE, lowered, apply_b_dec_to_input=False)


def _load_stored(layout: Layout, ref: DictionaryReference, paths: Mapping[str, Path]) -> Weights:
    """Return the weights of a layout of which ``loopscope.inputs.layouts`` says what it holds."""
    assert layout.contents is not None  # true of all that have a format there
    tensors: dict[str, Tensor] = {}
    for name, path in paths.items():
        if layout.pickled and name.endswith(PICKLED):
            tensors |= _tensors(converted(path, ref["files"][name], default_cache()))
        elif name.endswith(".npz"):
            tensors |= _arrays(path)
        elif name.endswith(".safetensors"):
            tensors |= _tensors(path)
    reading = ref.get("reading", {})
    return stored_weights(layout.contents, ref["architecture"], reading, tensors)


_LOADERS: dict[str, Callable[[Mapping[str, Path]], Weights]] = {
    "saelens": _load_saelens,
    "gemma-scope-npz": _load_gemma_scope_npz,
    "gemma-scope-safetensors": _load_gemma_scope_safetensors,
}


def _file(paths: Mapping[str, Path], name: str) -> Path:
    if name not in paths:
        raise TerminalFailure(
            "InputMissing", f"no sha256 was recorded for {name}; found {sorted(paths)}"
        )
    return paths[name]


def _only(paths: Mapping[str, Path], suffix: str) -> Path:
    found = [path for name, path in paths.items() if name.endswith(suffix)]
    if len(found) != 1:
        raise TerminalFailure(
            "InputMissing", f"expected one file {suffix}, found {len(found)} in {sorted(paths)}"
        )
    return found[0]


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise TerminalFailure(
            "UnsupportedDictionary", f"{path.name} is not a safetensors file: {error}"
        ) from error
    return tensors


def _config(path: Path, read: Callable[[JsonObject], Config]) -> Config:
    """Return what ``read`` makes of a config, as the controller read it when it was applied."""
    try:
        return read(read_json_object(path))
    except ValueError as error:
        raise TerminalFailure("UnsupportedDictionary", f"{path.name}: {error}") from error


def _built(weights: Weights, ref: DictionaryReference) -> SparseDictionary:
    tensors = {name: tensor.float().contiguous() for name, tensor in weights.tensors.items()}
    broken = sorted(name for name, tensor in tensors.items() if not tensor.isfinite().all())
    if broken:
        raise TerminalFailure("NotFinite", f"{', '.join(broken)} hold NaN or infinite numbers")
    try:
        dictionary = dictionary_of(
            weights.architecture,
            tensors,
            weights.settings,
            apply_b_dec_to_input=weights.apply_b_dec_to_input,
        )
    except ValueError as error:
        raise TerminalFailure("UnsupportedDictionary", str(error)) from error
    if "prefix" in ref:
        dictionary, _ = dictionary.subset(range(ref["prefix"]))
    found = (dictionary.d_in, dictionary.d_sae)
    if found != (ref["d_in"], ref["d_sae"]):
        raise TerminalFailure(
            "DictionaryMismatch",
            f"the weights are {found[0]} by {found[1]}, the reference says {ref['d_in']} by "
            f"{ref['d_sae']}",
        )
    return dictionary
