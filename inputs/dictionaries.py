"""Descriptions of dictionaries: files, hashes, shapes and the hook that each belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from loopscope.inputs.architectures import ARCHITECTURES
from loopscope.inputs.dictionary_training import Training, read_training
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.files import HashMemo, read_json_object
from loopscope.inputs.gemma_scope import check_gemma_scope_config
from loopscope.inputs.headers import (
    HeaderError,
    TensorHeader,
    read_npz_headers,
    read_safetensors_header,
)
from loopscope.inputs.hub import Hub
from loopscope.inputs.layouts import BY_FORMAT
from loopscope.inputs.layouts.gemma_scope import GEMMA_SCOPE
from loopscope.inputs.layouts.layout import Entry, Layout
from loopscope.inputs.layouts.saelens import SAELENS
from loopscope.inputs.pickles import PickleRefused, check_pickle
from loopscope.inputs.releases import ReleaseEntry, find_release, release_hint
from loopscope.inputs.saelens_config import SaelensConfig, read_saelens_config
from loopscope.inputs.shapes import Shape, shape_of
from loopscope.inputs.stored import StoredFacts, check_conversion, stored_facts
from loopscope.specs.canonical import digest
from loopscope.specs.json_values import JsonObject
from loopscope.specs.payloads.references import (
    DictionaryPlace,
    DictionaryReading,
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
        check_conversion(entry.layout, dictionary.get("convert"), dictionary["release"])
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
    entry = find_release(dictionary["release"], dictionary["id"])
    known = entry.layout.known(entry.place)
    return _training(entry.said, "id", known.architecture if known.hook_out else None)


def known_architecture(dictionary: DictionaryJson) -> str | None:
    """Return the architecture that the registry alone says, without the hub, or None."""
    if dictionary.get("release") is None:
        return None
    entry = find_release(dictionary["release"], dictionary["id"])
    return entry.layout.known(entry.place).architecture


def _from_path(dictionary: DictionaryJson, path: Path, memo: HashMemo) -> DictionaryFacts:
    if path.suffix == ".npz" and path.is_file():
        check_conversion(GEMMA_SCOPE, dictionary.get("convert"), path.name)
        return _from_files(dictionary, "gemma-scope-npz", path, {path.name: path}, memo)
    if path.is_file():
        raise InputRefused(
            "path",
            f"{path.name} is no dictionary; expected a SAELens folder or an .npz file (no pickle "
            "is read without convert: sealed and the config beside it: name their folder)",
        )
    found = [weights for _, weights in FILES.values() if (path / weights).is_file()]
    if len(found) > 1:
        raise InputRefused(
            "path", f"{path} holds more than one dictionary ({', '.join(found)}); keep one a folder"
        )
    layout = _foreign(Entry("", path.name), lambda name: (path / name).is_file())
    if layout is not None:
        check_conversion(layout, dictionary.get("convert"), path.name)
        return _from_folder(dictionary, layout, path, memo)
    check_conversion(SAELENS, dictionary.get("convert"), path.name)
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
        shape = shape_of(config, _headers(stream, weights, size, "path"), "path")
    files = {name: memo.sha256(path) for name, path in paths.items()}
    _check_declared(dictionary, files[weights], str(paths[weights]))
    source: FolderPlace | FilePlace = (
        {"kind": "folder", "path": str(place)}
        if place.is_dir()
        else {"kind": "file", "path": str(place)}
    )
    return _facts(source, format_, files, shape, training)


def _foreign(entry: Entry, there: Callable[[str], bool]) -> Layout | None:
    """Return the layout, other than SAELens' own and Gemma Scope, all of whose files are there."""
    if there("cfg.json") and there("sae_weights.safetensors"):
        return None
    for layout in BY_FORMAT.values():
        files = layout.files(entry)
        if layout.by_files and all(there(name) for name in (*files.configs, *files.weights)):
            return layout
    return None


def _from_folder(
    dictionary: DictionaryJson, layout: Layout, folder: Path, memo: HashMemo
) -> DictionaryFacts:
    """Describe a local folder in another layout than SAELens' own."""
    entry = Entry("", folder.name)
    files = layout.files(entry)
    headers: dict[str, TensorHeader] = {}
    sizes = {name: (folder / name).stat().st_size for name in files.weights}
    for name in () if layout.pickled else files.weights:
        with (folder / name).open("rb") as stream:
            headers |= _own_names(stream, name, sizes[name], "path")
    configs = {name: folder / name for name in files.configs}
    facts = stored_facts(layout, entry, configs, headers, sizes, "path")
    for name in files.weights if layout.pickled else ():
        _check_pickle(folder / name)
    hashes = {name: memo.sha256(folder / name) for name in (*files.configs, *files.weights)}
    _check_declared(dictionary, hashes[files.weights[0]], str(folder / files.weights[0]))
    place: FolderPlace = {"kind": "folder", "path": str(folder)}
    return _of_stored(facts, layout, hashes, place, {}, "path")


def _check_pickle(path: Path) -> None:
    """Refuse pickled weights that name more than tensors; nothing of them is executed."""
    try:
        with path.open("rb") as file:
            check_pickle(file)
    except PickleRefused as refused:
        raise InputRefused(
            "path",
            f"{path} is no pickle of tensors alone: {refused}; it was not opened. Do not open it "
            "elsewhere either: ask who published it for safetensors, or name another dictionary",
        ) from None


def _from_hub(
    dictionary: DictionaryJson, entry: ReleaseEntry, hub: Hub, memo: HashMemo
) -> DictionaryFacts:
    """Describe a release's dictionary; of the weights only the headers are fetched."""
    at = hub.commit(entry.repo, dictionary.get("revision") or "main", "release")
    layout = entry.layout
    if not entry.registered:
        inside = f"{entry.path}/"
        layout = _foreign(entry.place, lambda name: inside + name in at.files) or SAELENS
        check_conversion(layout, dictionary.get("convert"), entry.repo)
    files = layout.files(entry.place)
    before = f"{files.folder}/" if files.folder else ""
    missing = [before + name for name in files.weights if before + name not in at.files]
    if missing:
        raise InputRefused(
            "id", f"{entry.repo} has no {missing[0]}; is it a dictionary of this format?"
        )
    present = [name for name in files.configs if before + name in at.files]
    configs = {name: hub.download(at, before + name, "id") for name in present}
    headers: dict[str, TensorHeader] = {}
    sizes = {name: at.files[before + name].size for name in files.weights}
    for name in () if layout.pickled else files.weights:
        with hub.open(at, before + name, "id") as stream:
            read = _headers if layout.contents is None else _own_names
            headers |= read(stream, name, sizes[name], "id")
    facts = None
    if layout.contents is not None:
        facts = stored_facts(layout, entry.place, configs, headers, sizes, "id")
    hashes = {
        name: hub.sha256(at, before + name, "id", memo) for name in (*present, *files.weights)
    }
    weights = files.weights[0]
    _check_declared(dictionary, hashes[weights], f"{before}{weights} of {entry.repo}")
    place: HubFolderPlace = {
        "kind": "hub", "repo": at.repo, "revision": at.commit, "path": files.folder
    }  # fmt: skip
    if facts is not None:
        return _of_stored(facts, layout, hashes, place, entry.said, "id")
    config, said = _config(layout.format, next(iter(configs.values()), None), "id")
    architecture = config.architecture if config else None
    training = _training({**said, **entry.said}, "id", architecture)
    shape = shape_of(config, headers, "id")
    return _facts(place, layout.format, hashes, shape, training)


def _of_stored(
    stored: StoredFacts,
    layout: Layout,
    hashes: dict[str, str],
    place: DictionaryPlace,
    registered: JsonObject,
    field: str,
) -> DictionaryFacts:
    """Return the facts of another layout than SAELens' own."""
    reading = stored.reading
    k = reading.numbers.get("k", 1)
    if k > stored.d_sae:
        raise InputRefused(field, f"k is {k}, but there are only {stored.d_sae} latents")
    training = _training({**reading.said, **registered}, field, reading.architecture)
    shape = Shape(reading.architecture, stored.d_in, stored.d_sae, stored.dtype, stored.d_out)
    return _facts(place, layout.format, hashes, shape, training, reading.numbers)


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
    headers = _own_names(stream, name, size, field)
    return {tensor.lower(): header for tensor, header in headers.items()}


def _own_names(stream: BinaryIO, name: str, size: int, field: str) -> dict[str, TensorHeader]:
    """Return the tensors' headers under the names that they have in the file."""
    try:
        if name.endswith(".npz"):
            return read_npz_headers(stream)
        return read_safetensors_header(stream, size)
    except HeaderError as error:
        raise InputRefused(field, f"{name}: {error}") from None


def _facts(
    place: DictionaryPlace,
    format_: str,
    files: dict[str, str],
    shape: Shape,
    training: Training,
    reading: DictionaryReading | None = None,
) -> DictionaryFacts:
    """Assemble the facts. The identity leaves out places: the same bytes are the same."""
    known = {"files": sorted(files.values()), "format": format_, "reader": READER_REVISION}
    identity = digest({**known, "reading": reading} if reading else known)
    ref: DictionaryReference = {
        "identity": identity,
        "format": format_,
        "source": place,
        "files": files,
        "architecture": shape.architecture,
        "d_in": shape.d_in,
        "d_sae": shape.d_sae,
    }
    if reading:
        ref["reading"] = reading
    return DictionaryFacts(
        ref, shape.architecture, shape.d_in, shape.d_sae, training.hook_name, shape.dtype,
        training.model_names, training.notes, training.write_hook, shape.d_out,
    )  # fmt: skip
