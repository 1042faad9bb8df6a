"""Conversion of pickled weights into safetensors, once for each file, by the sealed child."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import filelock

from loopscope.inputs.headers import HeaderError, read_safetensors_header
from loopscope.state.failures import TerminalFailure, TransientFailure
from loopscope.state.files import durable_replace, file_sha256, fsync_path
from loopscope.worker.sealed import child

REVISION = 1
"""Raise by hand when the same file would be converted into other tensors."""
HEADER_BYTES_MAX = 2**20
BLOCK_BYTES = 2**20
SECONDS_MAX = 3_600
MESSAGE_CHARACTERS_MAX = 500
WEIGHTS, RECORD = "tensors.safetensors", "source.json"


def converted(pickle: Path, sha256: str, cache: Path) -> Path:
    """Return the safetensors file of a pickled one whose sha256 was checked; made if need be.

    Raises ``TerminalFailure`` with reason ``UnsafeWeights`` where the child refuses the file.
    """
    folder = cache / "loopscope" / "dictionaries" / f"{sha256}-{REVISION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.with_name(f"{folder.name}.lock")):
        if not _is_whole(folder, sha256):
            _convert(pickle, sha256, folder)
    return folder / WEIGHTS


def _is_whole(folder: Path, sha256: str) -> bool:
    try:
        record = json.loads((folder / RECORD).read_text())
        found = file_sha256(folder / WEIGHTS)
        return (record["source"], record["weights"]) == (sha256, found)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _convert(pickle: Path, sha256: str, folder: Path) -> None:
    """Convert beside the final folder, which appears by rename. The caller holds the lock."""
    work = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        with pickle.open("rb") as source, (work / WEIGHTS).open("wb") as target:
            _run_child(source, target, pickle.name)
        _check(work / WEIGHTS, pickle.name)
        fsync_path(work / WEIGHTS)
        record = {"source": sha256, "weights": file_sha256(work / WEIGHTS), "revision": REVISION}
        (work / ".record").write_text(json.dumps(record))
        durable_replace(work / ".record", work / RECORD)
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
        fsync_path(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run_child(source: IO[bytes], target: IO[bytes], name: str) -> None:
    """Copy what the child writes into ``target``, as much as the file can hold and no more."""
    most = os.fstat(source.fileno()).st_size + HEADER_BYTES_MAX
    command = [sys.executable, "-I", "-B", "-m", child.__name__]
    with subprocess.Popen(
        command,
        stdin=source,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"OMP_NUM_THREADS": "1"},
        cwd="/",
        close_fds=True,
    ) as process:
        clock = threading.Timer(SECONDS_MAX, process.kill)
        said: list[bytes] = []
        listener = threading.Thread(target=_listen, args=(process.stderr, said))
        clock.start()
        listener.start()
        try:
            written = _copy(process.stdout, target, most)
            if written > most:
                process.kill()
        finally:
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.kill()
            listener.join()
            code = process.wait()
            clock.cancel()
    if code == 0 and written <= most:
        return
    words = b"".join(said).decode(errors="replace")[-MESSAGE_CHARACTERS_MAX:].strip()
    if code == child.REFUSED or written > most:
        raise _refusal(name, words or "it holds more than its own size")
    last = words.splitlines()[-1] if words else ""
    if code == -9:
        raise TransientFailure(
            "OutOfMemory", f"{name}: the process that reads it was killed; free memory"
        )
    raise _refusal(name, f"reading it ended with status {code} ({last})")


def _copy(source: IO[bytes] | None, target: IO[bytes], most: int) -> int:
    """Copy at most one block more than ``most`` bytes; return how many were read."""
    assert source is not None  # a pipe was asked for
    written = 0
    while written <= most and (block := source.read(BLOCK_BYTES)):
        target.write(block)
        written += len(block)
    return written


def _listen(stream: IO[bytes] | None, said: list[bytes]) -> None:
    assert stream is not None  # a pipe was asked for
    while block := stream.read(BLOCK_BYTES):
        said[:] = [(b"".join(said) + block)[-BLOCK_BYTES:]]


def _check(path: Path, name: str) -> None:
    try:
        with path.open("rb") as stream:
            read_safetensors_header(stream, path.stat().st_size)
    except HeaderError as error:
        raise _refusal(name, f"what was read of it is no safetensors file: {error}") from None


def _refusal(name: str, why: str) -> TerminalFailure:
    return TerminalFailure(
        "UnsafeWeights", f"{name} was not converted: {why}; name a dictionary in safetensors"
    )
