"""Hashes of files, remembered by path and stamp so that nothing is hashed twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from loopscope.inputs.errors import ResolutionPending
from loopscope.inputs.file_stamps import FileStamp
from loopscope.specs.canonical import digest
from loopscope.specs.git_lfs import ADVICE, is_pointer
from loopscope.specs.json_values import JsonObject
from loopscope.state import failpoints

MEMO_ENTRIES_MAX = 4096
MEMO_BYTES_MAX = 16 * 2**20
JSON_BYTES_MAX = 16 * 2**20
"""Largest config, tokenizer config or weight index that is read; as values, half a gigabyte."""
BLOCK_BYTES = 2**20
LOCK_TIMEOUT_SECONDS = 5.0

SHA256 = re.compile(r"[0-9a-f]{64}")


def default_cache() -> Path:
    """Return the cache folder: ``LOOPSCOPE_CACHE``, or the user's cache folder."""
    named = os.environ.get("LOOPSCOPE_CACHE")
    return Path(named) if named else platformdirs.user_cache_path()


def read_json_object(path: Path) -> JsonObject:
    """Return the JSON object in a small file; ``ValueError`` when it is anything else."""
    with path.open("rb") as stream:
        content = stream.read(JSON_BYTES_MAX + 1)
    if len(content) > JSON_BYTES_MAX:
        raise ValueError(f"{path.name} is larger than {JSON_BYTES_MAX} bytes")
    if is_pointer(content):
        raise ValueError(f"{path.name} {ADVICE}")
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return value


class HashMemo:
    """Sha256 of files, kept in one JSON file. Losing that file costs only a second hashing."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_cache() / "loopscope" / "file-hashes.json"
        self._seen: tuple[FileStamp, dict[str, str]] | None = None

    def sha256(self, *files: Path) -> str:
        """Return the sha256 of the files' bytes, one file after the other.

        Raises ``OSError`` when a file cannot be read and ``ResolutionPending`` when one
        changes while it is read.
        """
        before = [FileStamp.of(file) for file in files]
        key = digest([[str(f.resolve()), *s] for f, s in zip(files, before, strict=True)])
        known = self._remembered().get(key)
        if known is not None:
            return known
        found = _stream_sha256(files)
        if [FileStamp.of(file) for file in files] != before:
            names = ", ".join(file.name for file in files)
            raise ResolutionPending("InputChanging", f"{names} changed while being hashed")
        at = time.time_ns()
        if all(stamp.is_settled(at) for stamp in before):
            self._remember(key, found)
        return found

    def _remembered(self) -> dict[str, str]:
        """Return what the file holds, read again only once it changed.

        What another process adds within one tick is missed, which costs a second hashing.
        """
        try:
            stamp = FileStamp.of(self.path)
        except OSError:
            return {}
        if self._seen is None or self._seen[0] != stamp:
            self._seen = stamp, self._read()
        return self._seen[1]

    def _read(self) -> dict[str, str]:
        try:
            with self.path.open("rb") as stream:
                stored = json.loads(stream.read(MEMO_BYTES_MAX))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(stored, dict):
            return {}
        return {
            key: value
            for key, value in stored.items()
            if isinstance(value, str) and SHA256.fullmatch(value)
        }

    def _remember(self, key: str, found: str) -> None:
        # Best effort: a read-only or busy cache folder must not fail a resolution.
        with contextlib.suppress(OSError, Timeout):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", timeout=LOCK_TIMEOUT_SECONDS):
                entries = self._read()
                entries.pop(key, None)
                kept = dict(list(entries.items())[-(MEMO_ENTRIES_MAX - 1) :])
                replace_text(self.path, json.dumps({**kept, key: found}, indent=0))


def _stream_sha256(files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        for block in _blocks(file):
            total.update(block)
    return total.hexdigest()


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            yield block


def replace_text(path: Path, text: str) -> None:
    """Let a file hold this text and nothing else, or stay as it is: a reader sees either.

    Raises OSError.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        failpoints.reach("hash-memo-replace")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
