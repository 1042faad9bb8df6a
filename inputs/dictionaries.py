"""Descriptions of dictionaries: files, hashes, shapes and the hook that each belongs to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from loopscope.inputs.architectures import ARCHITECTURES, Axis
from loopscope.inputs.dictionary_training import Training, read_training
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.files import HashMemo, read_json_object
from loopscope.inputs.gemma_scope import GEMMA_SCOPE_ARCHITECTURE, check_gemma_scope_config
from loopscope.inputs.headers import (
    HeaderError,
    TensorHeader,
    read_npz_headers,
    read_safetensors_header,
)
from loopscope.inputs.hub import Hub
from loopscope.inputs.releases import ReleaseEntry, find_release, release_hint
from loopscope.inputs.saelens_config import SaelensConfig, read_saelens_config
from loopscope.specs.canonical import digest
from loopscope.specs.json_values import JsonObject
from loopscope.specs.payloads.references import (
    DictionaryPlace,
    DictionaryReference,
    FilePlace,
    FolderPlace,
    HubFolderPlace,
)
from loopscope.specs.spec_json import DictionaryJson

READER_REVISION = 1
"""Raise by hand when the same files are read into different weights."""
FILES = {
    "saelens": ("cfg.json", "sae_weights.safetensors"),
    "gemma-scope-npz": (None, "params.npz"),
    "gemma-scope-safetensors": ("config.json", "params.safetensors"),
}
"""Format -> its config (if it has one) and its weights."""
_FORMAT_BY_LOADER = {
    "sae_lens": "saelens",
    "gemma_2": "gemma-scope-npz",
    "gemma_3": "gemma-scope-safetensors",
}
_OLD_SCALINGS = frozenset({"scaling_factor", "finetuning_scaling_factor"})
"""Stored by old SAELens versions, usually all ones; the worker looks at the values."""
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class DictionaryFacts:
    """A resolved dictionary.

    ``ref`` is what a job carries: identity, format, source, files (name -> sha256),
    architecture, d_in, d_sae. ``hook_name`` is None and ``model_names`` (of the one model that it
    was trained on) is empty where that is not recorded; ``dtype`` is that of the stored
    encoder; ``notes`` are remarks for the reader of results. ``write_hook`` and ``d_out`` are
    where a transcoder writes and how wide that is, None for what writes where it reads.
    """

    ref: DictionaryReference
    architecture: str
    d_in: int
    d_sae: int
    hook_name: str | None
    dtype: str
    model_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    write_hook: str | None = None
    d_out: int | None = None


def describe_dictionary(
    dictionary: DictionaryJson, *, hub: Hub | None = None, memo: HashMemo | None = None
) -> DictionaryFacts:
    """Resolve a spec's dictionary (``path``, or ``release`` and ``id``) to files and facts.

    Raises ``InputRefused`` when the reference is wrong and ``ResolutionPending`` when the hub
    cannot be asked now.
    """
    whole = _describe_whole(dictionary, hub, memo or HashMemo())
    return whole if "prefix" not in dictionary else _prefixed(whole, dictionary["prefix"])


def _prefixed(facts: DictionaryFacts, prefix: int) -> DictionaryFacts:
    """Return the dictionary of the first latents, which has an identity of its own."""
    if ARCHITECTURES[facts.architecture].chooses_k:
        raise InputRefused(
            "prefix",
            f"the latents of a {facts.architecture} dictionary compete with one another, so that "
            "its first ones alone would fire otherwise; leave prefix out",
        )
    if prefix >= facts.d_sae:
        raise InputRefused(
            "prefix",
            f"expected fewer latents than the dictionary has ({facts.d_sae}), found {prefix}; "
            "leave prefix out for all of them",
        )
    identity = digest({"dictionary": facts.ref["identity"], "prefix": prefix})
    ref: DictionaryReference = {
        **facts.ref,
        "identity": identity,
        "d_sae": prefix,
        "prefix": prefix,
    }
    note = f"the first {prefix:,} of {facts.d_sae:,} latents"
    return replace(facts, ref=ref, d_sae=prefix, notes=(*facts.notes, note))


def _describe_whole(dictionary: DictionaryJson, hub: Hub | None, memo: HashMemo) -> DictionaryFacts:
    if dictionary.get("release") is not None:
        entry = find_release(dictionary["release"], dictionary["id"])
        return _from_hub(dictionary, entry, hub or Hub(), memo)
    if dictionary.get("path") is None:
        raise InputRefused("path", "expected either path, or release and id")
    try:
        return _from_path(dictionary, Path(dictionary["path"]), memo)
    except OSError as error:
        raise InputRefused(
            "path", f"{error.filename or dictionary['path']} cannot be read: {error.strerror}"
        ) from None


def known_training(dictionary: DictionaryJson) -> Training | None:
    """Return what the registry alone records of a release's training, without the hub, or None."""
    if dictionary.get("release") is None:
        return None
    return _training(find_release(dictionary["release"], dictionary["id"]).said, "id")


def _from_path(dictionary: DictionaryJson, path: Path, memo: HashMemo) -> DictionaryFacts:
    if path.suffix == ".npz" and path.is_file():
        return _from_files(dictionary, "gemma-scope-npz", path, {path.name: path}, memo)
    if path.is_file():
        raise InputRefused(
            "path",
            f"{path.name} is no dictionary; expected a SAELens folder or an .npz file "
            "(no pickle is ever read)",
        )
    found = [weights for _, weights in FILES.values() if (path / weights).is_file()]
    if len(found) > 1:
        raise InputRefused(
            "path", f"{path} holds more than one dictionary ({', '.join(found)}); keep one a folder"
        )
    for format_, (config, weights) in FILES.items():
        if weights in found:
            names = [name for name in (config, weights) if name and (path / name).is_file()]
            place = path / weights if config is None else path
            return _from_files(
                dictionary, format_, place, {name: path / name for name in names}, memo
            )
    known = ", ".join(weights for _, weights in FILES.values())
    missing = f"{path} holds none of {known}" if path.is_dir() else f"there is no {path}"
    hint = release_hint("/".join(path.parts[-2:]))
    raise InputRefused(
        "path",
        f"{missing}{hint}; expected a SAELens folder (cfg.json, sae_weights.safetensors), a Gemma "
        "Scope params.npz, or a Gemma Scope 2 folder (params.safetensors)",
    )


def _from_files(
    dictionary: DictionaryJson, format_: str, place: Path, paths: dict[str, Path], memo: HashMemo
) -> DictionaryFacts:
    """Describe local files: ``paths`` maps a name to its file, the weights' name last."""
    *configs, weights = paths
    config, said = _config(format_, paths[configs[0]] if configs else None, "path")
    training = _training(said, "path", config.architecture if config else None)
    size = paths[weights].stat().st_size
    with paths[weights].open("rb") as stream:
        shape = _shape(config, _headers(stream, weights, size, "path"), "path")
    files = {name: memo.sha256(path) for name, path in paths.items()}
    _check_declared(dictionary, files[weights], str(paths[weights]))
    source: FolderPlace | FilePlace = (
        {"kind": "folder", "path": str(place)}
        if place.is_dir()
        else {"kind": "file", "path": str(place)}
    )
    return _facts(source, format_, files, shape, training)


def _from_hub(
    dictionary: DictionaryJson, entry: ReleaseEntry, hub: Hub, memo: HashMemo
) -> DictionaryFacts:
    """Describe a release's dictionary; of the weights only the header is fetched."""
    at = hub.commit(entry.repo, dictionary.get("revision") or "main", "release")
    format_ = _FORMAT_BY_LOADER[entry.loader]
    (config_name, weights), folder = FILES[format_], entry.path
    if f"{folder}/{weights}" not in at.files:
        raise InputRefused(
            "id", f"{entry.repo} has no {folder}/{weights}; is it a dictionary of this format?"
        )
    present = [config_name] if config_name and f"{folder}/{config_name}" in at.files else []
    configs = [hub.download(at, f"{folder}/{name}", "id") for name in present]
    config, said = _config(format_, configs[0] if configs else None, "id")
    architecture = config.architecture if config else None
    training = _training({**said, **entry.said}, "id", architecture)
    with hub.open(at, f"{folder}/{weights}", "id") as stream:
        headers = _headers(stream, weights, at.files[f"{folder}/{weights}"].size, "id")
    shape = _shape(config, headers, "id")
    files = {name: hub.sha256(at, f"{folder}/{name}", "id", memo) for name in (*present, weights)}
    _check_declared(dictionary, files[weights], f"{folder}/{weights} of {entry.repo}")
    source: HubFolderPlace = {"kind": "hub", "repo": at.repo, "revision": at.commit, "path": folder}
    return _facts(source, format_, files, shape, training)


def _config(format_: str, path: Path | None, field: str) -> tuple[SaelensConfig | None, JsonObject]:
    """Return a SAELens dictionary's config (Gemma Scope: always JumpReLU), and its other fields."""
    try:
        if format_ == "saelens":
            if path is None:
                raise ValueError("missing beside the weights; copy the whole SAELens folder")
            config = read_saelens_config(read_json_object(path))
            return config, config.said
        if path is None:
            return None, {}
        said = read_json_object(path)
        check_gemma_scope_config(said)
    except ValueError as error:
        raise InputRefused(field, f"{FILES[format_][0]}: {error}") from None
    return None, said


def _training(said: JsonObject, field: str, architecture: str | None = None) -> Training:
    transcoder = architecture is not None and ARCHITECTURES[architecture].transcoder
    try:
        return read_training(said, transcoder=transcoder)
    except ValueError as error:
        raise InputRefused(field, str(error)) from None


def _check_declared(dictionary: DictionaryJson, sha256: str, what: str) -> None:
    declared = dictionary.get("sha256")
    if declared is not None and declared != sha256:
        raise InputRefused(
            "sha256",
            f"expected {declared}, found {sha256} for {what}; if that file is the one you "
            "want, write its hash here",
        )


def _headers(stream: BinaryIO, name: str, size: int, field: str) -> dict[str, TensorHeader]:
    """Return the tensors' headers under lower-case names (SAELens writes ``W_enc``)."""
    try:
        if name.endswith(".npz"):
            headers = read_npz_headers(stream)
        else:
            headers = read_safetensors_header(stream, size)
    except HeaderError as error:
        raise InputRefused(field, f"{name}: {error}") from None
    return {tensor.lower(): header for tensor, header in headers.items()}


@dataclass(frozen=True)
class _Shape:
    """``d_out`` is None for a dictionary that writes where it reads."""

    architecture: str
    d_in: int
    d_sae: int
    dtype: str
    d_out: int | None = None


def _shape(config: SaelensConfig | None, headers: dict[str, TensorHeader], field: str) -> _Shape:
    """Return the shape that config and headers agree on; Gemma Scope needs no config."""
    if config is None:
        return _checked_shape(GEMMA_SCOPE_ARCHITECTURE, headers, field)
    tensors = {name: headers[name] for name in headers.keys() - _OLD_SCALINGS}
    shape = _checked_shape(config.architecture, tensors, field)
    if (shape.d_in, shape.d_sae) != (config.d_in, config.d_sae):
        raise InputRefused(
            field,
            f"cfg.json says d_in {config.d_in}, d_sae {config.d_sae}, but the weights have "
            f"{shape.d_in} and {shape.d_sae}; the files do not belong together",
        )
    if shape.d_out not in (None, config.d_out):
        raise InputRefused(
            field,
            f"cfg.json says d_out {config.d_out}, but the decoder writes vectors of width "
            f"{shape.d_out}; the files do not belong together",
        )
    return shape


def _checked_shape(architecture: str, headers: dict[str, TensorHeader], field: str) -> _Shape:
    encoder = headers.get("w_enc")
    if encoder is None or len(encoder.shape) != 2 or 0 in encoder.shape:
        listed = ", ".join(sorted(headers))[:200]
        raise InputRefused(field, f"expected an encoder matrix W_enc, found {listed or 'nothing'}")
    d_in, d_sae = encoder.shape
    sizes: dict[Axis, int] = {"d_in": d_in, "d_sae": d_sae, "d_out": d_in}
    decoder = headers.get("w_dec")
    if ARCHITECTURES[architecture].transcoder and decoder and len(decoder.shape) == 2:
        sizes["d_out"] = decoder.shape[1]
    expected = _expected_shapes(architecture, headers.keys(), sizes)
    for name, shape in expected.items():
        found = headers[name].shape if name in headers else "nothing"
        if found != shape:
            raise InputRefused(field, f"expected {name} of shape {shape}, found {found}")
    extra = sorted(headers.keys() - expected.keys())
    if extra:
        raise InputRefused(
            field,
            f"tensor {extra[0][:80]} has no meaning for a {architecture} dictionary",
        )
    if encoder.dtype not in _DTYPES:
        raise InputRefused(field, f"W_enc is stored as {encoder.dtype}, expected floats")
    d_out = sizes["d_out"] if ARCHITECTURES[architecture].transcoder else None
    return _Shape(architecture, d_in, d_sae, _DTYPES[encoder.dtype], d_out)


def _expected_shapes(
    architecture: str, present: Collection[str], sizes: Mapping[Axis, int]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by its stored name, in lower case."""
    stored = ARCHITECTURES[architecture]
    expected: dict[str, tuple[int, ...]] = {}
    for tensor, axes in stored.tensors.items():
        name = stored.stored_name(tensor).lower()
        single = stored.one_for_all.get(tensor)
        if single is None or name in present:
            expected[name] = tuple(sizes[axis] for axis in axes)
        else:
            expected[single] = ()
    return expected


def _facts(
    place: DictionaryPlace,
    format_: str,
    files: dict[str, str],
    shape: _Shape,
    training: Training,
) -> DictionaryFacts:
    """Assemble the facts. The identity leaves out places: the same bytes are the same."""
    identity = digest(
        {"files": sorted(files.values()), "format": format_, "reader": READER_REVISION}
    )
    ref: DictionaryReference = {
        "identity": identity,
        "format": format_,
        "source": place,
        "files": files,
        "architecture": shape.architecture,
        "d_in": shape.d_in,
        "d_sae": shape.d_sae,
    }
    return DictionaryFacts(
        ref, shape.architecture, shape.d_in, shape.d_sae, training.hook_name, shape.dtype,
        training.model_names, training.notes, training.write_hook, shape.d_out,
    )  # fmt: skip
