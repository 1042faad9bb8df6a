"""Sources of models: from a reference to a verified local folder with safetensors weights.

A name is never an identity: every file is checked against the hashes that were resolved, and a
GGUF file is converted once per machine into ``<cache>/loopscope/models/<identity>/``, whose
``identity.json`` is written last.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import filelock

from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.file_stamps import FileStamp
from loopscope.inputs.files import HashMemo, read_json_object
from loopscope.inputs.model_files import (
    INDEX,
    WEIGHTS,
    asks_for_code,
    not_safetensors,
    pickled_among,
    shards_of,
)
from loopscope.inputs.packages import PackageMissing, find_packaged_gguf
from loopscope.specs.payloads.references import GgufPlace, ModelReference, PackagePlace
from loopscope.state import failpoints
from loopscope.state.failures import TerminalFailure
from loopscope.state.files import durable_replace, file_sha256, fsync_path
from loopscope.worker.conversion import ConversionFailed, convert_in_process
from loopscope.worker.downloads import downloading
from loopscope.worker.progress import ProgressReport

MARKER = "identity.json"
LOCK_POLL_SECONDS = 0.5

GgufSource = GgufPlace | PackagePlace


def local_model_folder(ref: ModelReference, cache: Path, progress: ProgressReport) -> Path:
    """Return the verified folder of a model, converting or downloading it if needed.

    Raises TerminalFailure (``InputChanged``, ``PackageMissing``, ``ConversionFailed``,
    ``UnsafeWeights``, ``NotFound``) and TransientFailure (``HubUnreachable``).
    """
    source = ref["source"]
    match source["kind"]:
        case "folder":
            folder = Path(source["path"])
        case "hub":
            folder = _download(source["repo"], source["revision"], ref["files"], progress)
        case "package" | "gguf":
            return _converted(ref, source, cache, progress)
        case kind:
            raise TerminalFailure("UnsupportedModel", f"unknown model source {kind!r}")
    check_safetensors(folder)
    check_files(folder, ref["files"])
    refuse_code(folder)
    return folder


@dataclass(frozen=True)
class ModelView:
    """Links to a model's files and to nothing else: ``path``; ``folder`` is where they lie."""

    path: Path
    folder: Path


@contextmanager
def only_its_files(folder: Path, ref: ModelReference) -> Iterator[ModelView]:
    """Show a model's folder without what is not part of its identity.

    Libraries pick up what they find by its name: an adapter where ``peft`` is installed, another
    tokenizer, generation defaults. What was not hashed must not decide.
    """
    converted = ref["source"]["kind"] in ("package", "gguf")
    names = json.loads((folder / MARKER).read_text())["files"] if converted else ref["files"]
    with tempfile.TemporaryDirectory(prefix="loopscope-model-") as view:
        for name in names:
            (Path(view) / name).symlink_to((folder / name).resolve())
        yield ModelView(Path(view), folder)


def check_files(folder: Path, files: dict[str, str]) -> None:
    """Check each file's sha256. Raises TerminalFailure ``InputChanged``.

    A file that did not change since it was hashed is not read again.
    """
    for name, expected in sorted(files.items()):
        path = folder / name
        try:
            found = sha256_of(path)
        except OSError as error:
            raise TerminalFailure("InputChanged", f"{path} cannot be read: {error}") from None
        if found != expected:
            raise TerminalFailure(
                "InputChanged",
                f"{path} has sha256 {found[:12]}…, expected {expected[:12]}…; "
                "restore the file, or apply again to accept the new one",
            )


def sha256_of(path: Path) -> str:
    """Return a file's sha256, read again only if its stamp is not that of the last reading.

    What an apply or another worker of this machine has hashed is remembered for all of them.
    """
    try:
        return HashMemo().sha256(path)
    except ResolutionPending:  # it changes under our hands, so it will not be what was expected
        return file_sha256(path)


def check_safetensors(folder: Path) -> None:
    """Check that the weights are safetensors: other formats would be unpickled."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise TerminalFailure("InputChanged", f"{folder} cannot be read: {error}") from None
    if WEIGHTS in names:
        return
    if INDEX in names:
        _check_index(folder / INDEX)
        return
    pickled = pickled_among(names)
    found = f"only {', '.join(pickled)}, which would be unpickled" if pickled else "no weights"
    raise TerminalFailure("UnsafeWeights", f"{folder} holds {found}; {WEIGHTS} is needed")


def _check_index(index: Path) -> None:
    """Check that sharded weights are safetensors, too: the index may name anything."""
    try:
        shards = shards_of(read_json_object(index))
    except (OSError, ValueError) as error:
        raise TerminalFailure("InputChanged", f"{index} cannot be read: {error}") from None
    if not shards:
        raise TerminalFailure("InputChanged", f"{index} names no file of weights")
    if other := not_safetensors(shards):
        raise TerminalFailure(
            "UnsafeWeights", f"{index} names {other[0][:80]!r}, no safetensors file"
        )


def refuse_code(folder: Path) -> None:
    """Raise TerminalFailure where a config asks for code of the model's own.

    Not left to transformers: without an answer to ``trust_remote_code`` it asks standard input.
    """
    for path in sorted(folder.glob("*config.json")):
        try:
            asks = asks_for_code(read_json_object(path))
        except (OSError, ValueError) as error:
            raise TerminalFailure("ModelNotLoadable", f"{path} cannot be read: {error}") from None
        if asks:
            raise TerminalFailure(
                "ModelNotLoadable",
                f"{path} asks for code from the model's repository (auto_map), which is never run",
            )


def _download(repo: str, revision: str, files: dict[str, str], progress: ProgressReport) -> Path:
    from huggingface_hub import snapshot_download

    progress("DownloadingModel", 0, 1, "models")
    with downloading(repo, revision, "NotFound"):
        folder: str = snapshot_download(repo, revision=revision, allow_patterns=sorted(files))
    return Path(folder)


def _converted(
    ref: ModelReference, source: GgufSource, cache: Path, progress: ProgressReport
) -> Path:
    if "unquantised" in ref:  # weights are rounded when they are loaded: one folder serves both
        ref = {**ref, "identity": ref["unquantised"]}
    models = cache / "loopscope" / "models"
    folder: Path = models / ref["identity"]
    if _is_complete(folder, ref["identity"]):
        return folder
    models.mkdir(parents=True, exist_ok=True)

    def still_wanted(percent: int = 0) -> None:
        progress("ConvertingModel", percent, 100, "percent")

    lock = _acquire(models / f"{ref['identity']}.lock", still_wanted)
    try:
        if not _is_complete(folder, ref["identity"]):
            _convert_into(folder, ref, source, still_wanted)
    finally:
        lock.release()
    still_wanted(100)
    return folder


def _acquire(path: Path, still_wanted: Callable[[], None]) -> filelock.BaseFileLock:
    lock = filelock.FileLock(path)
    while True:
        still_wanted()
        try:
            lock.acquire(timeout=LOCK_POLL_SECONDS)
        except filelock.Timeout:
            continue
        return lock


def _convert_into(
    folder: Path, ref: ModelReference, source: GgufSource, still_wanted: Callable[[int], None]
) -> None:
    """Convert beside the final folder, which appears by rename. The caller holds the lock."""
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = folder.parent / f".{folder.name}.{os.getpid()}"
    result = work / "model"
    result.mkdir(parents=True)
    try:
        gguf = _alone(_gguf_file(ref["files"], source, work), work / "source")
        try:
            convert_in_process(gguf, result, ref["dtype"], still_wanted)
        except ConversionFailed as error:
            raise TerminalFailure("ConversionFailed", f"{gguf.name}: {error}") from error
        _write_marker(result, ref)
        shutil.rmtree(folder, ignore_errors=True)
        failpoints.reach("conversion-rename")
        result.rename(folder)
        fsync_path(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _alone(gguf: Path, folder: Path) -> Path:
    """Return a link to the file in a folder of its own: the converter reads what lies beside it."""
    folder.mkdir()
    link = folder / gguf.name
    link.symlink_to(gguf.resolve())
    return link


def _gguf_file(files: dict[str, str], source: GgufSource, work: Path) -> Path:
    """Return the GGUF file of a source, its sha256 checked."""
    if source["kind"] == "gguf":
        gguf = Path(source["path"])
        expected = files.get(gguf.name) or source.get("sha256")
    else:
        gguf = _packaged_gguf(source["package"], work)
        expected = source["sha256"]
    try:
        found = sha256_of(gguf)
    except OSError as error:
        raise TerminalFailure("InputChanged", f"{gguf} cannot be read: {error}") from None
    if expected is None:
        raise TerminalFailure("InputChanged", f"no sha256 of {gguf.name} was resolved")
    if found != expected:
        raise TerminalFailure(
            "InputChanged", f"{gguf.name} has sha256 {found[:12]}…, expected {expected[:12]}…"
        )
    return gguf


def _packaged_gguf(package: str, work: Path) -> Path:
    """Return the GGUF file of an installed package, put together where it is shipped in parts."""
    try:
        found = find_packaged_gguf(package)
    except PackageMissing as error:
        raise TerminalFailure("PackageMissing", error.message) from None
    except InputRefused as error:
        raise TerminalFailure("InputChanged", error.message) from None
    if len(found.parts) == 1:
        return found.parts[0]
    whole = work / "assembled.gguf"
    with whole.open("wb") as target:
        for part in found.parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target)
    return whole


def _write_marker(folder: Path, ref: ModelReference) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        fsync_path(path)
        stamp = FileStamp.of(path)
        files[path.name] = {"sha256": file_sha256(path), "bytes": stamp.bytes, "stamp": stamp}
    record = {"identity": ref["identity"], "source": ref["source"], "files": files}
    temporary = folder / f".{MARKER}.tmp"
    temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    durable_replace(temporary, folder / MARKER)


def _is_complete(folder: Path, identity: str) -> bool:
    """Return whether ``folder`` holds the finished conversion, each file as it was written.

    A file that was touched since is hashed again; one that was not is trusted. Markers of older
    versions hold no stamps.
    """
    try:
        record = json.loads((folder / MARKER).read_text())
        if record["identity"] != identity:
            return False
        return all(
            _is_intact(folder / name, entry) for name, entry in sorted(record["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


class ConvertedFile(TypedDict):
    """A file of a conversion as it was written; markers of older versions hold no stamps."""

    sha256: str
    bytes: int
    stamp: NotRequired[list[int]]


def _is_intact(path: Path, entry: ConvertedFile) -> bool:
    stamp = FileStamp.of(path)
    if stamp.bytes != entry["bytes"]:
        return False
    return list(stamp) == entry.get("stamp") or sha256_of(path) == str(entry["sha256"])
