"""Loading of sparse dictionaries: verified bytes in, float32 weights out, nothing unpickled here.

Wide ones are memory-mapped: from the file itself where it holds what is needed, else from a copy
that is made once (``converted_dictionaries``). Whatever a format declares about scaling is either
folded into the weights or refused by name; a flag is never silently skipped.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from torch import Tensor

from loopscope.inputs.architectures import ARCHITECTURES
from loopscope.inputs.files import default_cache, read_json_object
from loopscope.inputs.gemma_scope import GEMMA_SCOPE_ARCHITECTURE, check_gemma_scope_config
from loopscope.inputs.headers import HeaderError
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
from loopscope.worker.converted_dictionaries import (
    CONVERTED_BYTES_MIN,
    MEBIBYTE,
    convert,
    folder_of,
    open_converted,
)
from loopscope.worker.downloads import downloading
from loopscope.worker.mapped_weights import MappedFile, mapped_npz
from loopscope.worker.model_sources import sha256_of
from loopscope.worker.progress import ProgressReport
from loopscope.worker.saelens import Weights, saelens_weights
from loopscope.worker.sealed.conversion import converted
from loopscope.worker.stored import stored_weights

Config = TypeVar("Config")
PICKLED = (".pt", ".pth")


CHECKED_ELEMENTS = 2**21
"""How many weights are looked at at once for NaN and infinity: 8 MB, and twice that beside them."""


def load_dictionary(
    ref: DictionaryReference, progress: ProgressReport = lambda *_: None
) -> SparseDictionary:
    """Return the dictionary of a DictionaryRef, on the CPU, every weight float32.

    One of ``CONVERTED_BYTES_MIN`` or more lies in the pages of a file. Raises ``TerminalFailure``
    with reason ``InputMissing`` or ``InputChanged`` for files that are gone or differ from their
    recorded sha256, ``UnsupportedDictionary`` for what cannot be applied exactly, ``NotFinite``
    for weights that are not numbers; ``TransientFailure`` with reason ``HubUnreachable`` when a
    download fails.
    """
    layout, loader = BY_FORMAT.get(ref["format"]), _LOADERS.get(ref["format"])
    if layout is None and loader is None:
        known = ", ".join(sorted([*_LOADERS, *BY_FORMAT]))
        raise TerminalFailure(
            "UnsupportedDictionary", f"format {ref['format']!r} is not one of {known}"
        )
    folder = folder_of(default_cache(), ref["identity"])
    copied = open_converted(folder)
    if copied is not None:
        file, about = copied
        return _built(Weights(tensors=file.tensors, mapped=file, **about), ref, progress)
    paths = {name: _verified(ref, name) for name in ref["files"]}
    if loader is not None:
        weights = loader(paths)
    else:
        assert layout is not None  # one of the two
        weights = _load_stored(layout, ref, paths)
    dictionary = _built(weights, ref, progress)  # refused before it is written
    parts = {name: getattr(dictionary, name) for name in dictionary.required_tensors}
    in_memory = (_in_memory(tensors, weights.mapped) for tensors in (weights.tensors, parts))
    if max(in_memory) < CONVERTED_BYTES_MIN:
        return dictionary
    about = {
        "architecture": weights.architecture,
        "settings": dict(weights.settings),
        "apply_b_dec_to_input": weights.apply_b_dec_to_input,
    }
    file = convert(folder, parts, about, progress, dictionary.release)
    return _built(replace(weights, tensors=file.tensors, mapped=file), ref, progress)


def _in_memory(tensors: Mapping[str, Tensor], mapped: MappedFile | None) -> int:
    """Return the bytes that tensors take as float32 outside of a file that lasts."""
    file = mapped if mapped and mapped.is_lasting else None
    return sum(
        4 * tensor.numel()
        for tensor in tensors.values()
        if file is None or tensor.dtype != torch.float32 or not file.holds(tensor)
    )


def _verified(ref: DictionaryReference, name: str) -> Path:
    """Return the path of one of the dictionary's files, its bytes checked."""
    path = located(ref["source"], name)
    expected = ref["files"][name]
    try:
        found = sha256_of(path)
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


def located(source: DictionaryPlace, name: str) -> Path:
    """Return the path of a dictionary's file, downloaded if it is not there.

    Raises TerminalFailure (``InputMissing``) and TransientFailure (``HubUnreachable``).
    """
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
    file = _tensors(_file(paths, "sae_weights.safetensors"))
    return replace(saelens_weights(config, file.tensors), mapped=file)


_NOT_ARRAYS = (
    ValueError, TypeError, OSError, EOFError, KeyError, SyntaxError, NotImplementedError,
    RuntimeError, OverflowError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What ``zipfile`` and numpy raise for bytes that are not an archive of plain arrays."""


def _load_gemma_scope_npz(paths: Mapping[str, Path]) -> Weights:
    path = _only(paths, ".npz")
    found = _arrays(path)
    if isinstance(found, MappedFile):
        return replace(_gemma_scope(found.tensors, path.name), mapped=found)
    return _gemma_scope(found, path.name)


def _arrays(path: Path) -> dict[str, Tensor] | MappedFile:
    """Return the arrays of an npz file, those of a large one in a mapped file."""
    try:
        if path.stat().st_size < CONVERTED_BYTES_MIN:
            with np.load(path, allow_pickle=False) as archive:
                return {name: torch.from_numpy(archive[name]) for name in archive.files}
        folder = folder_of(default_cache(), "unpacked").parent
        folder.mkdir(parents=True, exist_ok=True)
        return mapped_npz(path, folder)
    except _NOT_ARRAYS as error:
        raise TerminalFailure(
            "UnsupportedDictionary", f"{path.name} holds more than plain arrays: {error}"
        ) from error


def _load_gemma_scope_safetensors(paths: Mapping[str, Path]) -> Weights:
    if "config.json" in paths:
        _config(paths["config.json"], check_gemma_scope_config)
    path = _only(paths, ".safetensors")
    file = _tensors(path)
    return replace(_gemma_scope(file.tensors, path.name), mapped=file)


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
            tensors |= _tensors(converted(path, ref["files"][name], default_cache())).tensors
        elif name.endswith(".npz"):
            found = _arrays(path)
            tensors |= found.tensors if isinstance(found, MappedFile) else found
        elif name.endswith(".safetensors"):
            tensors |= _tensors(path).tensors
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


def _tensors(path: Path) -> MappedFile:
    try:
        return MappedFile.open(path)
    except HeaderError as error:
        raise TerminalFailure(
            "UnsupportedDictionary", f"{path.name} is not a safetensors file: {error}"
        ) from error


def _config(path: Path, read: Callable[[JsonObject], Config]) -> Config:
    """Return what ``read`` makes of a config, as the controller read it when it was applied."""
    try:
        return read(read_json_object(path))
    except ValueError as error:
        raise TerminalFailure("UnsupportedDictionary", f"{path.name}: {error}") from error


def _built(
    weights: Weights, ref: DictionaryReference, progress: ProgressReport
) -> SparseDictionary:
    tensors = {name: tensor.float().contiguous() for name, tensor in weights.tensors.items()}
    release = weights.mapped.release if weights.mapped is not None else lambda: None
    broken = _not_finite(tensors, release, progress)
    if broken:
        raise TerminalFailure("NotFinite", f"{', '.join(broken)} hold NaN or infinite numbers")
    try:
        dictionary = dictionary_of(
            weights.architecture,
            tensors,
            weights.settings,
            apply_b_dec_to_input=weights.apply_b_dec_to_input,
            release=release,
        )
    except ValueError as error:
        raise TerminalFailure("UnsupportedDictionary", str(error)) from error
    if "prefix" in ref and ref["prefix"] != dictionary.d_sae:
        dictionary, _ = dictionary.subset(range(ref["prefix"]))  # a copy of these latents
        release()
    found = (dictionary.d_in, dictionary.d_sae)
    if found != (ref["d_in"], ref["d_sae"]):
        raise TerminalFailure(
            "DictionaryMismatch",
            f"the weights are {found[0]} by {found[1]}, the reference says {ref['d_in']} by "
            f"{ref['d_sae']}",
        )
    return dictionary


def _not_finite(
    tensors: Mapping[str, Tensor], release: Callable[[], None], progress: ProgressReport
) -> list[str]:
    """Return the names of tensors with NaN or infinity, looked at piece by piece.

    How far it is is said of what is large enough to lie in a file.
    """
    total, done, broken = sum(tensor.nbytes for tensor in tensors.values()), 0, []
    for name, tensor in sorted(tensors.items()):
        for piece in torch.split(tensor.reshape(-1), CHECKED_ELEMENTS):
            if total >= CONVERTED_BYTES_MIN:
                progress("CheckingDictionary", done // MEBIBYTE, total // MEBIBYTE, "MiB")
            if not bool(piece.isfinite().all()):
                broken.append(name)
                break
            release()
            done += piece.nbytes
    return broken
