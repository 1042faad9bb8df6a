"""Dictionaries converted once per machine into float32 files that can be mapped.

A wide dictionary that comes as ``.npz``, in half precision, or with a scale to fold in would stand
in memory as a whole. It is written once into ``<cache>/loopscope/dictionaries/<identity>/``, whose
``identity.json`` is written last and holds each file's hash, and is mapped from there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import filelock
from torch import Tensor

from loopscope.inputs.file_stamps import FileStamp
from loopscope.inputs.headers import HeaderError
from loopscope.state.files import durable_replace, file_sha256, fsync_path
from loopscope.worker.mapped_weights import MappedFile, write_float32
from loopscope.worker.progress import ProgressReport

MARKER = "identity.json"
WEIGHTS = "weights.safetensors"
CONVERTED_BYTES_MIN = 64 * 2**20
"""Smaller dictionaries are simply held in memory."""
LOCK_POLL_SECONDS = 0.5
MEBIBYTE = 2**20


def folder_of(cache: Path, identity: str) -> Path:
    """Return where the converted dictionary of an identity lies, or would."""
    return cache / "loopscope" / "dictionaries" / identity


def open_converted(folder: Path) -> tuple[MappedFile, dict[str, Any]] | None:
    """Return a finished conversion and what was recorded with it; None where there is none.

    A file that was touched since it was written is hashed again; one that is not as it was written
    is as good as absent.
    """
    try:
        record = json.loads((folder / MARKER).read_text())
        weights = folder / WEIGHTS
        stamp = FileStamp.of(weights)
        if list(stamp) != record["stamp"] and (
            stamp.bytes != record["stamp"][0] or file_sha256(weights) != record["sha256"]
        ):
            return None
        if record["identity"] != folder.name:
            return None
        return MappedFile.open(weights), dict(record["about"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, HeaderError):
        return None


def convert(
    folder: Path,
    tensors: Mapping[str, Tensor],
    about: Mapping[str, Any],
    progress: ProgressReport,
    release: Callable[[], None],
) -> MappedFile:
    """Write float32 copies of ``tensors`` into ``folder``, once, and map them.

    ``about`` is JSON that ``open_converted`` returns. Of several processes one writes. ``release``
    gives back what was read of the tensors.
    """
    total = 4 * sum(tensor.numel() for tensor in tensors.values()) // MEBIBYTE

    def note(written: int) -> None:
        release()
        progress("ConvertingDictionary", min(written // MEBIBYTE, total), total, "MiB")

    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder, note):
        found = open_converted(folder)
        if found is None:
            _write(folder, tensors, {"identity": folder.name, "about": dict(about)}, note)
            found = open_converted(folder)
    if found is None:
        raise OSError(f"{folder} is not as it was written; check the disk")
    return found[0]


def _locked(folder: Path, note: Callable[[int], None]) -> AbstractContextManager[object]:
    """Wait for the lock of a folder; ``note`` is called meanwhile and may raise."""
    lock = filelock.FileLock(folder.with_name(f"{folder.name}.lock"))
    while True:
        note(0)
        try:
            return lock.acquire(timeout=LOCK_POLL_SECONDS)
        except filelock.Timeout:
            continue


def _write(
    folder: Path,
    tensors: Mapping[str, Tensor],
    record: dict[str, Any],
    note: Callable[[int], None],
) -> None:
    """Write beside the final folder, which appears by rename. The caller holds the lock."""
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    work.mkdir()
    try:
        weights = work / WEIGHTS
        write_float32(weights, tensors, note)
        fsync_path(weights)
        record |= {"sha256": file_sha256(weights), "stamp": list(FileStamp.of(weights))}
        temporary = work / f".{MARKER}.tmp"
        temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        durable_replace(temporary, work / MARKER)
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
        fsync_path(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
